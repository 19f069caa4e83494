package events

import (
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// maxText bounds the sentence of a problem, in bytes.
const maxText = 500

// Warnings makes log publish what it warns of, as problems.
func (h *Hub) Warnings(log *zap.Logger) *zap.Logger {
	return log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewTee(core, &problems{hub: h})
	}))
}

// problems is a core that turns warnings into events.
type problems struct {
	hub    *Hub
	fields []zapcore.Field
}

// Enabled implements zapcore.LevelEnabler.
func (*problems) Enabled(level zapcore.Level) bool { return level >= zapcore.WarnLevel }

// With implements zapcore.Core.
func (p *problems) With(fields []zapcore.Field) zapcore.Core {
	return &problems{p.hub, append(slices.Clone(p.fields), fields...)}
}

// Check implements zapcore.Core.
func (p *problems) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if p.Enabled(entry.Level) {
		return checked.AddCore(entry, p)
	}
	return checked
}

// Write implements zapcore.Core.
func (p *problems) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	severity := "warn"
	if entry.Level > zapcore.WarnLevel {
		severity = "error"
	}
	p.hub.Publish(Event{Time: entry.Time, Kind: KindProblem, Problem: &Problem{
		Severity: severity, Part: entry.LoggerName, Text: sentence(entry.Message, append(slices.Clone(p.fields), fields...)),
	}})
	return nil
}

// Sync implements zapcore.Core.
func (*problems) Sync() error { return nil }

// sentence is a message with its fields, for people.
func sentence(message string, fields []zapcore.Field) string {
	var b strings.Builder
	b.WriteString(message)
	for _, f := range fields {
		values := zapcore.NewMapObjectEncoder()
		f.AddTo(values)
		v, ok := values.Fields[f.Key]
		if !ok {
			continue
		}
		separator := ", "
		if b.Len() == len(message) {
			separator = ": "
		}
		if f.Type == zapcore.ErrorType {
			fmt.Fprintf(&b, "%s%v", separator, v)
		} else {
			fmt.Fprintf(&b, "%s%s %v", separator, f.Key, v)
		}
	}
	text := strings.ToValidUTF8(b.String(), "?")
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "..."
	}
	return text
}
