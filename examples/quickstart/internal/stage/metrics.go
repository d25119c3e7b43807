package stage

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Metrics holds the values of one scrape by name; the labels are part of the name, as they were written.
type Metrics map[string]float64

func scrape(ctx context.Context, url string) (Metrics, error) {
	status, body, err := get(ctx, url+"/metrics")
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("%s/metrics answers with HTTP %d", url, status)
	}
	return parseMetrics(body), nil
}

// parseMetrics reads Prometheus's text format without timestamps (prometheus.io/docs/instrumenting/exposition_formats).
func parseMetrics(text string) Metrics {
	m := Metrics{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || line[0] == '#' {
			continue
		}
		if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
			m[line[:i]] = v
		}
	}
	return m
}
