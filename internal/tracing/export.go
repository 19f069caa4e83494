package tracing

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/version"
)

// endTimeout is how long the last spans may take to be sent when the daemon ends.
const endTimeout = 5 * time.Second

// Tracer begins traces. Nil is one that begins none.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
}

// New returns a tracer that tells the collector at endpoint, the URL below which it
// has /v1/traces, or where that is "" the one that OpenTelemetry's own variables
// name. Without either it is nil.
func New(ctx context.Context, endpoint string, log *zap.Logger) (*Tracer, error) {
	log = log.Named("tracing")
	client, err := newClient(endpoint)
	switch {
	case err != nil && endpoint == "":
		log.Warn("requests are not traced", zap.Error(err)) // the variables may be meant for others
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("tracing: %w", err)
	case client == nil:
		return nil, nil // which costs nothing
	}
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "nar-p2pd"), attribute.String("service.version", version.String())),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	otlp, err := otlptrace.New(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	provider := sdk.NewTracerProvider(sdk.WithResource(about), sdk.WithBatcher(&exporter{SpanExporter: otlp, log: log}))
	log.Info("requests are traced", zap.String("collector", client.endpoint.Redacted()))
	return &Tracer{provider, provider.Tracer(scope)}, nil
}

// Close sends what is left.
func (t *Tracer) Close() error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("tracing: %w", err)
	}
	return nil
}

// exporter says once that the collector does not take anything, and once that it
// does again.
type exporter struct {
	sdk.SpanExporter

	log     *zap.Logger
	failing atomic.Bool
}

// ExportSpans implements sdk.SpanExporter. What could not be sent is lost, which
// is no concern of who traces.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if failing := err != nil; e.failing.Swap(failing) != failing {
		if failing {
			e.log.Warn("traces are lost: the collector does not take them", zap.Error(err))
		} else {
			e.log.Info("the collector takes traces again")
		}
	}
	return nil
}
