// Package tracing tells an OpenTelemetry collector how requests went, from end to
// end: who was asked for what, how long that took, and what came of it.
//
// A trace begins with a request (Tracer.Begin), and its context carries it through
// the floors, which add spans to it (Start). Where nothing is traced, as by
// default, there is no tracer, spans are nothing, and none of the two allocates.
//
// Traces end at this node: neither upstreams nor peers are told their IDs.
package tracing

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

// scope names what makes the spans.
const scope = "github.com/nar-p2p/nar-p2p"

// Begin begins the trace of a request. A nil tracer begins none.
func (t *Tracer) Begin(ctx context.Context, name string) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	ctx, span := t.tracer.Start(ctx, name, trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindServer))
	return ctx, Span{span}
}

// Start begins a part of what ctx is traced for, or nothing where it is not.
func Start(ctx context.Context, name string) (context.Context, Span) {
	return start(ctx, name, trace.SpanKindInternal)
}

// Ask is Start for what somebody else is asked to do.
func Ask(ctx context.Context, name string) (context.Context, Span) {
	return start(ctx, name, trace.SpanKindClient)
}

func start(ctx context.Context, name string, kind trace.SpanKind) (context.Context, Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, Span{}
	}
	ctx, span := parent.TracerProvider().Tracer(scope).Start(ctx, name, trace.WithSpanKind(kind))
	return ctx, Span{span}
}

// Of returns the span that ctx is in.
func Of(ctx context.Context) Span {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		return Span{span}
	}
	return Span{}
}

// ID is a field for the log with the trace's ID, which collectors find it by.
func ID(ctx context.Context) zap.Field {
	if c := trace.SpanContextFromContext(ctx); c.IsSampled() {
		return zap.Stringer("traceId", c.TraceID())
	}
	return zap.Skip()
}

// Span is a part of a trace. The zero value is none, and takes whatever it is
// told.
type Span struct{ span trace.Span }

// On reports whether there is one: what is costly to say is said only then.
func (s Span) On() bool { return s.span != nil }

// String says something about the span.
func (s Span) String(key, value string) {
	if s.span != nil {
		s.span.SetAttributes(attribute.String(key, value))
	}
}

// Int says a number about the span.
func (s Span) Int(key string, value int64) {
	if s.span != nil {
		s.span.SetAttributes(attribute.Int64(key, value))
	}
}

// Bool says whether something holds of the span.
func (s Span) Bool(key string, value bool) {
	if s.span != nil {
		s.span.SetAttributes(attribute.Bool(key, value))
	}
}

// Event says that something has happened just now, to what.
func (s Span) Event(name, key, value string) {
	if s.span != nil {
		s.span.AddEvent(name, trace.WithAttributes(attribute.String(key, value)))
	}
}

// End ends the span; with an error it has failed, unless nobody wanted it any
// more.
func (s Span) End(err error) {
	if s.span == nil {
		return
	}
	switch {
	case errors.Is(err, context.Canceled):
		s.span.SetAttributes(attribute.Bool("nar_p2p.cancelled", true))
	case err != nil:
		s.span.SetStatus(codes.Error, err.Error())
	}
	s.span.End()
}
