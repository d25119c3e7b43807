"""An app that knows nothing of keyturn: it reads a key from a file and asks Gemini.

poet.py serve        answer GET / on port 8000 with a poem
poet.py once         print one poem
"""
import http.server
import json
import os
import sys
import urllib.error
import urllib.request

KEY_FILE = os.environ.get("KEY_FILE", "/run/keyturn/keys/gemini-api-key")
BASE_URL = os.environ.get("GOOGLE_GEMINI_BASE_URL", "https://generativelanguage.googleapis.com")
MODEL = os.environ.get("MODEL", "gemini-3.8-flash")
BODY = json.dumps({"contents": [{"parts": [{"text": "Write a poem of two lines about a key."}]}]}).encode()


def poem():
    with open(KEY_FILE, encoding="ascii") as f:  # anew each time: the file is always whole, and always the newest
        key = f.read()
    request = urllib.request.Request(
        f"{BASE_URL}/v1beta/models/{MODEL}:generateContent",
        data=BODY,
        headers={"Content-Type": "application/json", "x-goog-api-key": key},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["candidates"][0]["content"]["parts"][0]["text"]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            status, text = 200, poem()
        except (OSError, urllib.error.URLError) as error:
            status, text = 502, f"no poem: {error}"
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode() + b"\n")


if sys.argv[1] == "once":
    print(poem())
else:
    http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
