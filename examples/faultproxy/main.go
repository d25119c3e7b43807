// Command faultproxy is Shopify's Toxiproxy as one program: TCP proxies that are made, cut, slowed and reset over HTTP while
// connections run. It prints the address that its API listens at, and ends with its caller.
//
// It is a module of its own so that what it needs stays out of the product's.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "faultproxy: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	proxies := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	fmt.Printf("http://%s\n", listener.Addr())
	server := &http.Server{Handler: proxies.Routes(), ReadHeaderTimeout: 10 * time.Second}
	return server.Serve(listener)
}
