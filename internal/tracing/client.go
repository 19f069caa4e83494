package tracing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

const (
	// defaultTimeout is that of the specification, for one batch with all tries.
	defaultTimeout = 10 * time.Second
	// maxAnswer bounds what is read of a collector's answer, in bytes.
	maxAnswer = 4 << 10
)

// client sends traces by OTLP over HTTP, in protobuf
// (https://opentelemetry.io/docs/specs/otlp/#otlphttp). That of OpenTelemetry
// itself brings gRPC along, which makes the daemon larger by a quarter.
type client struct {
	endpoint *url.URL
	header   http.Header
	timeout  time.Duration
	http     *http.Client
}

var _ otlptrace.Client = (*client)(nil)

// newClient returns a client of the collector that endpoint names, or else the
// environment; nil where neither does, or the environment wants none told
// (https://opentelemetry.io/docs/specs/otel/protocol/exporter/).
func newClient(endpoint string) (*client, error) {
	base := first(endpoint, variable("ENDPOINT"))
	full := variable("TRACES_ENDPOINT")
	disabled := strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || os.Getenv("OTEL_TRACES_EXPORTER") == "none"
	if endpoint == "" && (disabled || base == "" && full == "") {
		return nil, nil
	}
	if endpoint != "" || full == "" {
		var err error
		if full, err = url.JoinPath(base, "v1", "traces"); err != nil {
			return nil, err
		}
	}
	u, err := url.Parse(full)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("its address is not an http:// or https:// URL") // and may hold a password
	}
	if spoken := first(variable("TRACES_PROTOCOL"), variable("PROTOCOL"), "http/protobuf"); endpoint == "" && spoken != "http/protobuf" {
		return nil, fmt.Errorf("a collector is named in the environment, but for the protocol %.40q, and http/protobuf is spoken", spoken)
	}
	c := &client{endpoint: u, timeout: defaultTimeout, http: &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment}}}
	if ms, err := strconv.Atoi(first(variable("TRACES_TIMEOUT"), variable("TIMEOUT"))); err == nil && ms > 0 {
		c.timeout = time.Duration(ms) * time.Millisecond
	}
	c.header, err = headers(first(variable("TRACES_HEADERS"), variable("HEADERS")))
	return c, err
}

// variable returns one of those for exporters by OTLP.
func variable(name string) string { return os.Getenv("OTEL_EXPORTER_OTLP_" + name) }

// first returns the first of texts that is not empty.
func first(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

// headers reads "name=value,name=value", whose values are encoded as in URLs.
func headers(text string) (http.Header, error) {
	h := http.Header{"Content-Type": {"application/x-protobuf"}}
	for pair := range strings.SplitSeq(text, ",") {
		name, value, found := strings.Cut(strings.TrimSpace(pair), "=")
		if pair == "" {
			continue
		}
		decoded, err := url.PathUnescape(strings.TrimSpace(value))
		if !found || err != nil {
			return nil, errors.New("OTEL_EXPORTER_OTLP_HEADERS is not name=value,name=value") // the value may be a secret
		}
		h.Set(strings.TrimSpace(name), decoded)
	}
	return h, nil
}

// Start implements otlptrace.Client.
func (c *client) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client.
func (c *client) Stop(context.Context) error {
	c.http.CloseIdleConnections()
	return nil
}

// UploadTraces implements otlptrace.Client.
func (c *client) UploadTraces(ctx context.Context, spans []*traces.ResourceSpans) error {
	// The request for export is, on the wire, the same as what a file has.
	body, err := proto.Marshal(&traces.TracesData{ResourceSpans: spans})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	_, err = backoff.Retry(ctx, func() (struct{}, error) { return struct{}{}, c.post(ctx, body) })
	return err
}

// post sends a batch once. An error that another try does not mend is permanent.
func (c *client) post(ctx context.Context, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint.String(), bytes.NewReader(body))
	if err != nil {
		return backoff.Permanent(err)
	}
	request.Header = c.header.Clone()
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	// What it says is of use for the log alone, and lets the connection be used again.
	said, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	_ = response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK, http.StatusAccepted:
		return nil
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return fmt.Errorf("the collector answers %s", response.Status)
	default:
		return backoff.Permanent(fmt.Errorf("the collector answers %s: %.200q", response.Status, said))
	}
}
