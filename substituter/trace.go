package substituter

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/nar-p2p/nar-p2p/internal/tracing"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

// traced begins the trace of a request, where requests are traced.
func (s *Server) traced(r *http.Request, what string) (context.Context, tracing.Span) {
	ctx, span := s.tracer.Begin(r.Context(), what)
	if span.On() {
		span.String("http.request.method", r.Method)
		span.String("url.path", r.URL.Path)
	}
	return ctx, span
}

// came says what a request has come to.
func came(span tracing.Span, result string, status int) {
	span.String("nar_p2p.result", result)
	span.Int("http.response.status_code", int64(status))
}

// traceRecord ends the span of a lookup.
func traceRecord(span tracing.Span, r *rendered, err error) {
	switch {
	case !span.On():
		return
	case err == nil:
		span.String("nar_p2p.store_path", r.info.StorePath.String())
	case errors.Is(err, narstore.ErrNotFound):
		span.String("nar_p2p.result", resultAbsent)
		err = nil
	}
	span.End(err)
}

// traceAnswer ends the span of a question to an upstream.
func traceAnswer(span tracing.Span, name string, err error) {
	span.String("url.full", name)
	if errors.Is(err, upstream.ErrAbsent) || errors.Is(err, upstream.ErrFiltered) {
		span.String("nar_p2p.result", resultAbsent)
		err = nil
	}
	span.End(err)
}

// trace ends the span of making the plan.
func (f *fetchPlan) trace(span tracing.Span) {
	if !span.On() {
		return
	}
	span.String("nar_p2p.order", orders[f.Reason])
	for _, e := range f.entries {
		span.Event(e.kind().String(), "nar_p2p.after", e.after.String())
	}
	span.End(nil)
}

// traceFlight ends the span of a fetch.
func traceFlight(span tracing.Span, fl *flight, result string, err error) {
	if !span.On() {
		return
	}
	span.String("nar_p2p.store_path", fl.rec.info.StorePath.String())
	span.Int("nar_p2p.nar_size", fl.size)
	span.Int("nar_p2p.offset", fl.want.From)
	span.String("nar_p2p.result", result)
	span.End(err)
}

// traceSource ends the span of a source that has brought so many bytes.
func traceSource(span tracing.Span, e *entry, bytes int64, err error) {
	if !span.On() {
		return
	}
	span.String("nar_p2p.source", e.kind().String())
	if e.name != "" {
		span.String("url.full", e.name)
	}
	span.Int("nar_p2p.bytes", bytes)
	if errors.Is(err, io.EOF) || e.kind() == fromStore && errors.Is(err, narstore.ErrNotFound) {
		err = nil
	}
	span.End(err)
}
