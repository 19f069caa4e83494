package logging

import (
	"strings"
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

// CaptureLibp2p sends what libp2p (slog), kad-dht and Badger (go-log) log to
// log: warnings and worse, or also what they inform of where log itself passes
// debug messages. Their own debug messages, several for every stream and write,
// would drown ours. All keep their handlers for the whole process, from their
// first message on: call it once, before anything of libp2p starts.
func CaptureLibp2p(log *zap.Logger) {
	core := libp2pCore(log.Core())
	gologshim.SetDefaultHandler(zapslog.NewHandler(core, zapslog.WithName("libp2p")))
	golog.SetAllLoggers(golog.LogLevel(zapcore.LevelOf(core)))
	golog.SetPrimaryCore(core)
}

func libp2pCore(core zapcore.Core) zapcore.Core {
	if core.Enabled(zapcore.DebugLevel) {
		return raise(quiet{core}, zapcore.InfoLevel)
	}
	return zapcore.NewSamplerWithOptions(raise(quiet{core}, zapcore.WarnLevel), sampleInterval, 1, 0)
}

// raise drops what is below least.
func raise(core zapcore.Core, least zapcore.Level) zapcore.Core {
	if raised, err := zapcore.NewIncreaseLevelCore(core, least); err == nil {
		return raised
	}
	return core // which is above least already
}

// quiet drops and lowers what says nothing to the owner of a node.
type quiet struct{ zapcore.Core }

// With implements zapcore.Core.
func (q quiet) With(fields []zapcore.Field) zapcore.Core { return quiet{q.Core.With(fields)} }

// Check implements zapcore.Core.
func (q quiet) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	switch {
	case entry.Message == unclosedBatch:
		return checked
	case strings.HasPrefix(entry.LoggerName, "badger") && entry.Level < zapcore.WarnLevel:
		return checked
	case strings.HasPrefix(entry.LoggerName, "dht") && entry.Level == zapcore.WarnLevel:
		// It warns whenever there is nobody to ask, as at every start.
		entry.Level = zapcore.DebugLevel
	}
	return q.Core.Check(entry, checked)
}

// Level lets zapcore.LevelOf see through.
func (q quiet) Level() zapcore.Level { return zapcore.LevelOf(q.Core) }
