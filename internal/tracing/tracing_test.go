package tracing_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/nar-p2p/nar-p2p/internal/tracing"
	"github.com/nar-p2p/nar-p2p/internal/tracing/tracingtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quiet forgets what the machine's owner has set for OpenTelemetry.
func quiet(t *testing.T) {
	t.Helper()
	for _, name := range []string{"ENDPOINT", "TRACES_ENDPOINT"} {
		t.Setenv("OTEL_EXPORTER_OTLP_"+name, "")
	}
}

// TestTrace wants a collector to be told of a request and its parts.
func TestTrace(t *testing.T) {
	quiet(t)
	for name, test := range map[string]struct{ variable, path string }{
		"by the configuration":       {},
		"by a variable":              {variable: "OTEL_EXPORTER_OTLP_ENDPOINT"},
		"by the variable for traces": {variable: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", path: "/v1/traces"},
	} {
		t.Run(name, func(t *testing.T) {
			collector := tracingtest.NewCollector(t)
			endpoint := collector.URL
			if test.variable != "" {
				t.Setenv(test.variable, endpoint+test.path)
				endpoint = ""
			}
			tracer, err := tracing.New(t.Context(), endpoint, zap.NewNop())
			if err != nil {
				t.Fatal(err)
			}
			ctx, request := tracer.Begin(t.Context(), "request")
			request.Int("n", 7)
			part, span := tracing.Ask(ctx, "part")
			if id := tracing.ID(part); id.Type != zapcore.StringerType || !tracing.Of(part).On() {
				t.Errorf("the log is told %+v", id)
			}
			span.End(errors.New("failed"))
			_, cancelled := tracing.Start(ctx, "cancelled")
			cancelled.End(context.Canceled)
			request.End(nil)
			if err := tracer.Close(); err != nil {
				t.Fatal(err)
			}
			root := collector.Root(t, "request")
			if root.Attributes["n"] != "7" || root.Trace == "" || root.Service != "nar-p2pd" {
				t.Errorf("request: %+v", root)
			}
			if got := root.Child(t, "part"); got.Error != "failed" || got.Trace != root.Trace {
				t.Errorf("part: %+v", got)
			}
			if got := root.Child(t, "cancelled"); got.Error != "" || got.Attributes["nar_p2p.cancelled"] != "true" {
				t.Errorf("cancelled: %+v", got)
			}
		})
	}
}

// TestVariables wants those that OpenTelemetry has for exporters to count, and one
// that asks for what is not spoken to be told of without stopping the daemon.
func TestVariables(t *testing.T) {
	quiet(t)
	collector := tracingtest.NewCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x, x-tenant=acme")
	tracer, err := tracing.New(t.Context(), "", zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	trace(t.Context(), tracer)
	if err := tracer.Close(); err != nil {
		t.Fatal(err)
	}
	if h := collector.Header(); h.Get("Authorization") != "Bearer x" || h.Get("X-Tenant") != "acme" {
		t.Errorf("the collector sees %v", h)
	}
	for name, value := range map[string]string{"HEADERS": "x=%zz", "PROTOCOL": "grpc", "ENDPOINT": "localhost:4317"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_"+name, value)
			core, said := observer.New(zap.WarnLevel)
			if tracer, err := tracing.New(t.Context(), "", zap.New(core)); tracer != nil || err != nil || said.Len() != 1 {
				t.Errorf("New() = %v, %v, and the log says %v", tracer, err, said.All())
			}
		})
	}
}

// TestOff wants no tracer where nobody has asked for one, and that to cost
// nothing.
func TestOff(t *testing.T) {
	quiet(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_SDK_DISABLED", "true")
	if tracer, err := tracing.New(t.Context(), "", zap.NewNop()); tracer != nil || err != nil {
		t.Errorf("New() = %v, %v, want nothing", tracer, err)
	}
	if n := testing.AllocsPerRun(100, func() { trace(t.Context(), nil) }); n != 0 {
		t.Errorf("a request that is not traced makes %v allocations", n)
	}
}

// trace is what a request does that is, or is not, traced.
func trace(ctx context.Context, tracer *tracing.Tracer) {
	ctx, request := tracer.Begin(ctx, "request")
	request.String("result", "found")
	_, span := tracing.Start(ctx, "part")
	span.Int("bytes", 7)
	span.End(nil)
	request.End(nil)
}

// TestUnreachable wants the log to say once that nobody takes the traces, and the
// end not to wait for that.
func TestUnreachable(t *testing.T) {
	quiet(t)
	core, said := observer.New(zap.WarnLevel)
	collector := tracingtest.NewCollector(t)
	collector.Refuse(http.StatusBadRequest)
	tracer, err := tracing.New(t.Context(), collector.URL, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	trace(t.Context(), tracer)
	if err := tracer.Close(); err != nil {
		t.Error(err)
	}
	if said.Len() != 1 {
		t.Errorf("the log says %v", said.All())
	}
}

// BenchmarkRequest is what it costs to trace a request with one part, and not to.
func BenchmarkRequest(b *testing.B) {
	collector := tracingtest.NewCollector(b)
	on, err := tracing.New(b.Context(), collector.URL, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	defer on.Close()
	for name, tracer := range map[string]*tracing.Tracer{"off": nil, "on": on} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				trace(b.Context(), tracer)
			}
		})
	}
}
