package logging

import (
	"time"

	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/gologshim"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"
)

// A peer can make libp2p log, and a busy network repeats itself: of each
// message one passes in this time.
const sampleInterval = 10 * time.Minute

// unclosedBatch is what go-ds-badger4 says, as an error, for every batch that was
// left to the garbage collector, as kad-dht does when it closes. Nothing is lost
// by it.
const unclosedBatch = "batch not committed or canceled"

// CaptureLibp2p sends what libp2p (slog) and kad-dht (go-log) log to log, from
// warnings on (of the DHT from errors on: it warns whenever there is nobody to
// ask), or everything where log itself passes debug messages. Both keep their
// handlers for the whole process, from their first message on: call it once,
// before anything of libp2p starts.
func CaptureLibp2p(log *zap.Logger) error {
	core := libp2pCore(log.Core())
	gologshim.SetDefaultHandler(zapslog.NewHandler(core, zapslog.WithName("libp2p")))
	golog.SetAllLoggers(golog.LogLevel(zapcore.LevelOf(core)))
	golog.SetPrimaryCore(core)
	if core.Enabled(zapcore.DebugLevel) {
		return nil
	}
	return golog.SetLogLevelRegex("^dht", zapcore.ErrorLevel.String())
}

func libp2pCore(core zapcore.Core) zapcore.Core {
	if core.Enabled(zapcore.DebugLevel) {
		return core
	}
	if raised, err := zapcore.NewIncreaseLevelCore(core, zapcore.WarnLevel); err == nil {
		core = raised
	} // else core is above warnings already
	return zapcore.NewSamplerWithOptions(quiet{core}, sampleInterval, 1, 0)
}

// quiet drops unclosedBatch.
type quiet struct{ zapcore.Core }

// With implements zapcore.Core.
func (q quiet) With(fields []zapcore.Field) zapcore.Core { return quiet{q.Core.With(fields)} }

// Check implements zapcore.Core.
func (q quiet) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if entry.Message == unclosedBatch {
		return checked
	}
	return q.Core.Check(entry, checked)
}

// Level lets zapcore.LevelOf see through.
func (q quiet) Level() zapcore.Level { return zapcore.LevelOf(q.Core) }
