// Package logging makes the one logger of a program, and brings the logs of
// libp2p and its DHT into it.
package logging

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// The formats of New.
const (
	Console = "console"
	JSON    = "json"
)

// New returns a logger that writes messages of at least level ("debug",
// "info", "warn", "error") to w in format Console or JSON. In format Console
// they go to systemd's journal itself where standard error does: with fields. The
// level that it returns can be changed.
func New(w io.Writer, level, format string) (*zap.Logger, zap.AtomicLevel, error) {
	var send sendFunc
	if toJournal, err := journal.StderrIsJournalStream(); err == nil && toJournal && w == os.Stderr {
		send = journal.Send
	}
	return build(w, level, format, send)
}

func build(w io.Writer, level, format string, send sendFunc) (*zap.Logger, zap.AtomicLevel, error) {
	least, err := zap.ParseAtomicLevel(level)
	if err != nil {
		return nil, least, fmt.Errorf("logging: %w", err)
	}
	encoder, err := newEncoder(format)
	if err != nil {
		return nil, least, err
	}
	core := zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), least)
	if send != nil && format == Console {
		cfg := consoleConfig()
		cfg.TimeKey = zapcore.OmitKey
		core = &journalCore{LevelEnabler: least, text: zapcore.NewConsoleEncoder(cfg), send: send, rest: core}
	}
	return zap.New(core, zap.ErrorOutput(zapcore.AddSync(w))), least, nil
}

func newEncoder(format string) (zapcore.Encoder, error) {
	switch format {
	case JSON:
		cfg := zap.NewProductionEncoderConfig()
		cfg.EncodeTime = zapcore.RFC3339NanoTimeEncoder
		cfg.EncodeDuration = zapcore.StringDurationEncoder
		return zapcore.NewJSONEncoder(cfg), nil
	case Console:
		return zapcore.NewConsoleEncoder(consoleConfig()), nil
	default:
		return nil, fmt.Errorf("logging: format %.20q is neither %s nor %s", format, Console, JSON)
	}
}

func consoleConfig() zapcore.EncoderConfig {
	cfg := zap.NewProductionEncoderConfig()
	cfg.EncodeTime = zapcore.TimeEncoderOfLayout(time.TimeOnly)
	cfg.EncodeLevel = zapcore.CapitalLevelEncoder
	cfg.CallerKey = zapcore.OmitKey
	cfg.EncodeDuration = zapcore.StringDurationEncoder
	cfg.ConsoleSeparator = " "
	return cfg
}
