package geminitest

import (
	"encoding/json"
	"net/http"
	"strings"
)

// Case names one of the errors that the Gemini API is known to answer with.
type Case string

const (
	Invalid         Case = "invalid"          // unknown or deleted
	NotFound        Case = "not found"        // another wording of it
	Expired         Case = "expired"          // also what a brand-new key gets for its first minutes
	TokenType       Case = "token type"       // a standard key after their end, or a malformed auth key
	Leaked          Case = "leaked"           // reported as leaked: no details
	Suspended       Case = "suspended"        // quotes the key in full, twice
	ProjectDenied   Case = "project denied"   // no details
	ServiceDisabled Case = "service disabled" // the API is off in the project
	ServiceBlocked  Case = "service blocked"  // the key is restricted to other APIs
	AddressBlocked  Case = "address blocked"  // the key is restricted to other IP addresses
	ReferrerBlocked Case = "referrer blocked" // the key is restricted to other web sites
	Region          Case = "region"           // the API is not offered where the caller is
	NoKey           Case = "no key"           // no credential at all
	TwoCredentials  Case = "two credentials"  // more than one
	KeyInURL        Case = "key in URL"       // an auth key as ?key=
	RateLimited     Case = "rate limited"     // in its short form
	QuotaExceeded   Case = "quota exceeded"   // in its long form, with RetryInfo of 26 s
	QuotaHelp       Case = "quota help"       // with a link only
	BadRequest      Case = "bad request"
	NoModel         Case = "no model"
	Internal        Case = "internal"
	Overloaded      Case = "overloaded"
)

// Cases returns every case.
func Cases() []Case {
	return []Case{Invalid, NotFound, Expired, TokenType, Leaked, Suspended, ProjectDenied, ServiceDisabled, ServiceBlocked,
		AddressBlocked, ReferrerBlocked, Region, NoKey, TwoCredentials, KeyInURL, RateLimited, QuotaExceeded, QuotaHelp,
		BadRequest, NoModel, Internal, Overloaded}
}

const (
	contentType = "application/json; charset=UTF-8"
	serviceName = "generativelanguage.googleapis.com"
	project     = "projects/123456789012"
)

// Response returns the status and the body of c, as the answer to a request with key. Only [Suspended] quotes the key.
func (c Case) Response(key string) (status int, body []byte) {
	e := c.apiError(key)
	body, err := json.MarshalIndent(map[string]any{"error": e}, "", "  ")
	if err != nil {
		panic("geminitest: " + err.Error()) // maps of strings always marshal
	}
	return e.Code, append(body, '\n')
}

type apiError struct {
	Code    int              `json:"code"`
	Message string           `json:"message"`
	Status  string           `json:"status"`
	Details []map[string]any `json:"details,omitempty"`
}

func (c Case) apiError(key string) apiError {
	switch c {
	case Invalid:
		return keyInvalid("API key not valid. Please pass a valid API key.")
	case NotFound:
		return keyInvalid("API Key not found. Please pass a valid API key.")
	case Expired:
		return keyInvalid("API key expired. Please renew the API key.")
	case TokenType:
		return apiError{http.StatusUnauthorized, "Request had invalid authentication credentials. Expected OAuth 2 access " +
			"token, login cookie or other valid authentication credential. See " +
			"https://developers.google.com/identity/sign-in/web/devconsole-project.", "UNAUTHENTICATED",
			[]map[string]any{errorInfo("ACCESS_TOKEN_TYPE_UNSUPPORTED", map[string]string{
				"method": "google.ai.generativelanguage.v1beta.GenerativeService.GenerateContent", "service": serviceName})}}
	case Leaked:
		return denied("Your API key was reported as leaked. Please use another API key.")
	case Suspended:
		return denied("Permission denied: Consumer 'api_key:"+key+"' has been suspended.", errorInfo("CONSUMER_SUSPENDED",
			map[string]string{"service": serviceName, "consumer": project, "containerInfo": "api_key:" + key}))
	case ProjectDenied:
		return denied("Your project has been denied access. Please contact support.")
	case ServiceDisabled, ServiceBlocked, AddressBlocked, ReferrerBlocked, Region, NoKey:
		return c.notSetUp()
	case RateLimited, QuotaExceeded, QuotaHelp:
		return c.quota()
	default:
		return c.plain()
	}
}

func (c Case) plain() apiError {
	switch c {
	case TwoCredentials:
		return invalid("Multiple authentication credentials received. Please pass only one.")
	case BadRequest:
		return invalid("Invalid JSON payload received. Unexpected end of string.")
	case KeyInURL:
		return apiError{http.StatusNotFound, "Requested entity was not found.", "NOT_FOUND", nil}
	case NoModel:
		return apiError{http.StatusNotFound, "models/gemini-0 is not found for API version v1beta, or is not supported for " +
			"generateContent. Call ListModels to see the list of available models and their supported methods.", "NOT_FOUND", nil}
	case Internal:
		return apiError{http.StatusInternalServerError, "An internal error has occurred. Please retry or report in " +
			"https://developers.generativeai.google/guide/troubleshooting", "INTERNAL", nil}
	case Overloaded:
		return apiError{http.StatusServiceUnavailable, "The model is overloaded. Please try again later.", "UNAVAILABLE", nil}
	}
	panic("geminitest: unknown case " + string(c))
}

func (c Case) notSetUp() apiError {
	meta := map[string]string{"service": serviceName, "consumer": project}
	const blocked = "Requests to this API " + serviceName + " method google.ai.generativelanguage.v1beta." +
		"GenerativeService.GenerateContent are blocked."
	switch c {
	case ServiceDisabled:
		const text = "Generative Language API has not been used in project 123456789012 before or it is disabled. Enable it " +
			"by visiting https://console.developers.google.com/apis/api/" + serviceName + "/overview?project=123456789012 " +
			"then retry. If you enabled this API recently, wait a few minutes for the action to propagate to our systems " +
			"and retry."
		return denied(text, errorInfo("SERVICE_DISABLED", meta), localized(text))
	case ServiceBlocked:
		return denied(blocked, errorInfo("API_KEY_SERVICE_BLOCKED", meta))
	case AddressBlocked:
		return denied("The provided API key has an IP address restriction. The originating IP address of the call "+
			"(192.0.2.1) violates this restriction.", errorInfo("API_KEY_IP_ADDRESS_BLOCKED", meta))
	case ReferrerBlocked:
		return denied("Requests from referer <empty> are blocked.", errorInfo("API_KEY_HTTP_REFERRER_BLOCKED", meta))
	case Region:
		return apiError{http.StatusBadRequest, "User location is not supported for the API use.", "FAILED_PRECONDITION", nil}
	default: // NoKey
		return denied("Method doesn't allow unregistered callers (callers without established identity). Please use API Key " +
			"or other form of API consumer identity to call this API.")
	}
}

func (c Case) quota() apiError {
	help := map[string]any{"@type": "type.googleapis.com/google.rpc.Help", "links": []map[string]string{{
		"description": "Learn more about Gemini API quotas", "url": "https://ai.google.dev/gemini-api/docs/rate-limits"}}}
	const long = "You exceeded your current quota, please check your plan and billing details. For more information on this " +
		"error, head to: https://ai.google.dev/gemini-api/docs/rate-limits."
	e := apiError{http.StatusTooManyRequests, long, "RESOURCE_EXHAUSTED", []map[string]any{help}}
	switch c {
	case RateLimited:
		e.Message, e.Details = "Resource has been exhausted (e.g. check quota).", nil
	case QuotaExceeded:
		e.Details = []map[string]any{{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": []map[string]any{{
			"quotaMetric":     serviceName + "/generate_content_free_tier_requests",
			"quotaId":         "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
			"quotaDimensions": map[string]string{"location": "global", "model": "gemini-3.8-flash"},
			"quotaValue":      "10",
		}}}, help, {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "26s"}}
	}
	return e
}

func keyInvalid(message string) apiError {
	return invalid(message, errorInfo("API_KEY_INVALID", map[string]string{"service": serviceName}), localized(message))
}

func invalid(message string, details ...map[string]any) apiError {
	return apiError{http.StatusBadRequest, message, "INVALID_ARGUMENT", details}
}

func denied(message string, details ...map[string]any) apiError {
	return apiError{http.StatusForbidden, message, "PERMISSION_DENIED", details}
}

func errorInfo(reason string, metadata map[string]string) map[string]any {
	return map[string]any{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason,
		"domain": "googleapis.com", "metadata": metadata}
}

func localized(message string) map[string]any {
	return map[string]any{"@type": "type.googleapis.com/google.rpc.LocalizedMessage", "locale": "en-US",
		"message": strings.TrimSpace(message)}
}
