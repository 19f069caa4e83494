// Package tracingtest has a collector of traces for tests.
package tracingtest

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Collector takes traces as OTLP over HTTP.
type Collector struct {
	// URL is the endpoint.
	URL string

	mu      sync.Mutex
	spans   []*Span
	header  http.Header
	refusal int
}

// Span is a span with what was said of it.
type Span struct {
	Name, Service string
	// Trace is the trace's ID in hexadecimal digits.
	Trace string
	// Attributes are as text, and Events the names of what happened.
	Attributes map[string]string
	Events     []string
	// Error is why it has failed, or "".
	Error    string
	Children []*Span

	id, parent string
}

// NewCollector starts one that ends with the test.
func NewCollector(tb testing.TB) *Collector {
	tb.Helper()
	c := &Collector{}
	server := httptest.NewServer(c)
	tb.Cleanup(server.Close)
	c.URL = server.URL
	return c
}

// Header returns that of the last request.
func (c *Collector) Header() http.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.header
}

// Refuse answers with an HTTP status from now on.
func (c *Collector) Refuse(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refusal = status
}

// ServeHTTP implements http.Handler.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// A request for export is, on the wire, what a file of traces is.
	var data traces.TracesData
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = proto.Unmarshal(body, &data)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.header = r.Header
	switch {
	case c.refusal != 0:
		w.WriteHeader(c.refusal)
	case r.Method != http.MethodPost || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf":
		http.Error(w, fmt.Sprintf("%s %s is not how traces are sent", r.Method, r.URL), http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
	default:
		c.take(&data)
	}
}

func (c *Collector) take(data *traces.TracesData) {
	for _, of := range data.GetResourceSpans() {
		service := texts(of.GetResource().GetAttributes())["service.name"]
		for _, scope := range of.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				span := &Span{
					Name: s.GetName(), Service: service, Trace: hex.EncodeToString(s.GetTraceId()), Attributes: texts(s.GetAttributes()),
					id: string(s.GetSpanId()), parent: string(s.GetParentSpanId()),
				}
				if s.GetStatus().GetCode() == traces.Status_STATUS_CODE_ERROR {
					span.Error = s.GetStatus().GetMessage()
				}
				for _, e := range s.GetEvents() {
					span.Events = append(span.Events, e.GetName())
				}
				c.spans = append(c.spans, span)
			}
		}
	}
}

func texts(attributes []*common.KeyValue) map[string]string {
	all := make(map[string]string)
	for _, a := range attributes {
		switch v := a.GetValue().GetValue().(type) {
		case *common.AnyValue_StringValue:
			all[a.GetKey()] = v.StringValue
		case *common.AnyValue_IntValue:
			all[a.GetKey()] = fmt.Sprint(v.IntValue)
		case *common.AnyValue_BoolValue:
			all[a.GetKey()] = fmt.Sprint(v.BoolValue)
		}
	}
	return all
}

// Roots returns the spans without a parent, with all that belongs to them.
func (c *Collector) Roots(tb testing.TB) (roots []*Span) {
	tb.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		s.Children = nil
	}
	for _, s := range c.spans {
		if s.parent == "" {
			roots = append(roots, s)
			continue
		}
		i := slices.IndexFunc(c.spans, func(other *Span) bool { return other.id == s.parent && other.Trace == s.Trace })
		if i < 0 {
			tb.Errorf("the parent of %+v is not there", s)
			continue
		}
		c.spans[i].Children = append(c.spans[i].Children, s)
	}
	return roots
}

// Root returns the only root of this name.
func (c *Collector) Root(tb testing.TB, name string) *Span {
	tb.Helper()
	return only(tb, name, c.Roots(tb))
}

// Child returns the only child of this name.
func (s *Span) Child(tb testing.TB, name string) *Span {
	tb.Helper()
	return only(tb, name, s.Children)
}

func only(tb testing.TB, name string, spans []*Span) *Span {
	tb.Helper()
	var found []*Span
	for _, s := range spans {
		if s.Name == name {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		tb.Fatalf("there are %d spans %q, want one", len(found), name)
	}
	return found[0]
}

// Tree draws the span with all that belongs to it, for people.
func (s *Span) Tree() string {
	var b strings.Builder
	s.draw(&b, "")
	return b.String()
}

func (s *Span) draw(b *strings.Builder, indent string) {
	fmt.Fprintf(b, "%s%s %v %v %s\n", indent, s.Name, s.Attributes, s.Events, s.Error)
	for _, child := range s.Children {
		child.draw(b, indent+"  ")
	}
}
