package logging

import (
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// fieldPrefix keeps our fields apart from the journal's own.
const fieldPrefix = "NAR_P2P_"

// sendFunc is journal.Send.
type sendFunc func(message string, priority journal.Priority, fields map[string]string) error

// journalCore gives messages to systemd's journal with what it can be searched
// by: priorities and fields, "journalctl -p warning NAR_P2P_LOGGER=p2p".
type journalCore struct {
	zapcore.LevelEnabler
	// text is how a message reads, without its time.
	text   zapcore.Encoder
	fields []zap.Field
	send   sendFunc
	// rest takes what the journal does not.
	rest zapcore.Core
}

// With implements zapcore.Core.
func (c *journalCore) With(fields []zap.Field) zapcore.Core {
	with := *c
	with.fields = append(append([]zap.Field(nil), c.fields...), fields...)
	with.rest = c.rest.With(fields)
	return &with
}

// Check implements zapcore.Core.
func (c *journalCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

// Write implements zapcore.Core.
func (c *journalCore) Write(entry zapcore.Entry, fields []zap.Field) error {
	all := append(append([]zap.Field(nil), c.fields...), fields...)
	text, err := c.text.EncodeEntry(entry, all)
	if err != nil {
		return err
	}
	defer text.Free()
	if err := c.send(strings.TrimSuffix(text.String(), "\n"), priority(entry.Level), journalFields(entry, all)); err != nil {
		return c.rest.Write(entry, fields)
	}
	return nil
}

// Sync implements zapcore.Core.
func (c *journalCore) Sync() error { return c.rest.Sync() }

func priority(level zapcore.Level) journal.Priority {
	switch level {
	case zapcore.DebugLevel:
		return journal.PriDebug
	case zapcore.InfoLevel:
		return journal.PriInfo
	case zapcore.WarnLevel:
		return journal.PriWarning
	case zapcore.ErrorLevel:
		return journal.PriErr
	default:
		return journal.PriCrit
	}
}

func journalFields(entry zapcore.Entry, fields []zap.Field) map[string]string {
	values := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(values)
	}
	all := make(map[string]string, len(values.Fields)+2)
	for key, value := range values.Fields {
		if at, ok := value.(time.Time); ok {
			value = at.Format(time.RFC3339Nano)
		}
		all[fieldName(key)] = fmt.Sprint(value)
	}
	if entry.LoggerName != "" {
		all[fieldPrefix+"LOGGER"] = entry.LoggerName
	}
	all["SYSLOG_IDENTIFIER"] = "nar-p2pd"
	return all
}

// fieldName makes of storePath NAR_P2P_STORE_PATH. The journal allows nothing
// but upper-case letters, digits and underscores.
func fieldName(key string) string {
	var name strings.Builder
	name.WriteString(fieldPrefix)
	lower := false
	for _, r := range key {
		switch {
		case r >= 'A' && r <= 'Z':
			if lower {
				name.WriteByte('_')
			}
			name.WriteRune(r)
		case r >= 'a' && r <= 'z':
			name.WriteRune(r - 'a' + 'A')
		case r >= '0' && r <= '9':
			name.WriteRune(r)
		default:
			name.WriteByte('_')
		}
		lower = r >= 'a' && r <= 'z' || r >= '0' && r <= '9'
	}
	return name.String()
}
