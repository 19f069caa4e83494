package substituter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/moment"
	"github.com/nar-p2p/nar-p2p/internal/throttle"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/health"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

const (
	// keepHealth is how long it is remembered how an upstream did: over a
	// holiday; then the machine may well stand elsewhere.
	keepHealth = 14 * 24 * time.Hour
	// keepEvery is how often that is written while it changes.
	keepEvery = time.Minute
)

// mirror is an upstream and what is known of it. It is asked by the methods
// here, so that its health learns from it.
type mirror struct {
	*upstream.Client
	cfg      upstream.Config
	priority int
	private  bool
	health   *health.Tracker
	traffic  *traffic
	log      *zap.Logger

	open      atomic.Bool   // as last logged
	wake      chan struct{} // of one signal, to whoever probes it
	demanded  moment.Moment // when somebody last wanted it
	refreshed moment.Moment // when it was last probed though nobody did

	bucket  Bucket // nil if nothing is kept
	keeping sync.Mutex
	kept    time.Time // when it was last written
}

// admit asks whether the upstream may be asked, and has it probed where it is
// left alone.
func (m *mirror) admit() health.Admission {
	a := m.health.Admit()
	if a != health.Admitted {
		m.rouse()
	}
	return a
}

// narinfo asks for the record of a path.
func (m *mirror) narinfo(ctx context.Context, part nix.HashPart) (*narinfo.Info, error) {
	asked := time.Now()
	info, err := m.Narinfo(ctx, part)
	m.settle(ctx, askedNarinfo, asked, err)
	return info, err
}

// probe asks whether the upstream works.
func (m *mirror) probe(ctx context.Context) {
	asked := time.Now()
	m.settle(ctx, askedProbe, asked, m.Probe(ctx))
}

// file asks for a file that is passed through.
func (m *mirror) file(ctx context.Context, name string, limit int64) (io.ReadCloser, error) {
	asked := time.Now()
	body, err := m.File(ctx, name, limit)
	m.settle(ctx, askedFile, asked, err)
	return body, err
}

// narTrial is what an upstream whose NARs have failed gets to show that they
// come again: whoever asks for this one could go on to another substituter.
const narTrial = 2 * time.Second

var errNARsRest = errors.New("its NARs have failed, and are left alone for a moment")

// nar asks for the bytes of a NAR from an offset on.
func (m *mirror) nar(ctx context.Context, info *narinfo.Info, offset int64) (io.ReadCloser, error) {
	asked := time.Now()
	stop := func() bool { return true }
	switch m.health.AdmitNAR() {
	case health.Refused:
		m.traffic.add(m, askedNAR, resultSkipped)
		return nil, fmt.Errorf("%s: %w", m, errNARsRest)
	case health.Trial:
		own, cancel := context.WithCancelCause(ctx)
		stop = time.AfterFunc(narTrial, func() { cancel(context.DeadlineExceeded) }).Stop
		ctx = own
	default:
	}
	body, err := m.OpenNAR(ctx, info, offset)
	if err != nil {
		stop()
		m.settleNAR(ctx, info.URL, asked, err)
		return nil, err
	}
	m.traffic.count(m, askedNAR, nil)
	return &measuredBody{
		ReadCloser: body, m: m, name: info.URL, ended: ctx.Err, late: func() bool { return late(ctx) }, asked: asked, whole: offset == 0, begun: stop, line: throttle.From(ctx),
	}, nil
}

// settleNAR draws the conclusions from a NAR that did not begin.
func (m *mirror) settleNAR(ctx context.Context, name string, asked time.Time, err error) {
	var status *upstream.StatusError
	switch {
	case late(ctx), upstream.TimedOut(err) && !upstream.Unconnected(err):
		m.health.HungNAR(asked, fmt.Sprintf("NAR: no answer in %v", time.Since(asked).Round(time.Millisecond)))
		m.Reconnect() // it may be the connection that is lost
	case ctx.Err() != nil, errors.Is(err, upstream.ErrAbsent), upstream.Unconnected(err),
		errors.As(err, &status) && status.RetryAfter > 0:
		m.settle(ctx, askedNAR, asked, err) // it is as with all else
		return
	default:
		m.health.FailedNAR(asked, name, m.problem(err))
	}
	m.traffic.count(m, askedNAR, err)
	m.logChange()
	m.keep(keepEvery)
}

// late reports whether a context has ended since what it was for took too long.
func late(ctx context.Context) bool {
	return errors.Is(context.Cause(ctx), context.DeadlineExceeded)
}

// settle draws the conclusions from how a question ended that was asked at this
// time under ctx.
func (m *mirror) settle(ctx context.Context, what asking, asked time.Time, err error) {
	m.traffic.count(m, what, err)
	took := time.Since(asked)
	var status *upstream.StatusError
	switch {
	case err == nil && what == askedProbe:
		m.health.Answered(took)
	case (err == nil || errors.Is(err, upstream.ErrAbsent)) && what == askedNarinfo:
		m.health.Answered(took)
		m.traffic.latency.WithLabelValues(m.String()).Observe(took.Seconds())
	case err == nil, errors.Is(err, upstream.ErrAbsent):
		m.health.Works()
	case errors.Is(ctx.Err(), context.Canceled):
		return // nobody wanted to know any more
	case upstream.Unconnected(err):
		m.health.Down(asked, m.problem(err))
	case upstream.TimedOut(err):
		m.silent(asked)
	case errors.As(err, &status) && status.RetryAfter > 0:
		m.health.SentAway(asked, m.problem(err), status.RetryAfter)
	default:
		m.health.Failed(asked, m.problem(err))
	}
	m.logChange()
	m.keep(keepEvery)
}

// silent notes that a question asked at this time is without an answer, for
// which there may be a lost connection to blame.
func (m *mirror) silent(asked time.Time) {
	if m.health.Silent(asked, fmt.Sprintf("no answer in %v", time.Since(asked).Round(time.Millisecond))) {
		m.Reconnect()
		m.logChange()
	}
}

// logChange tells once when the upstream begins to be left alone, and when that
// ends.
func (m *mirror) logChange() {
	state := m.health.State()
	switch {
	case m.open.Swap(state.Open) == state.Open:
	case state.Open:
		m.log.Warn("upstream is left alone", zap.Stringer("upstream", m), zap.String("problem", state.Problem), zap.Time("until", state.Until))
	default:
		m.log.Info("upstream answers again", zap.Stringer("upstream", m))
	}
}

// problem is an error for whoever knows which upstream it is about.
func (m *mirror) problem(err error) string {
	return strings.TrimPrefix(err.Error(), "upstream: "+m.String()+": ")
}

// recall takes what was kept of the upstream.
func (m *mirror) recall() {
	if m.bucket == nil {
		return
	}
	data, err := m.bucket.Get([]byte(m.String()))
	if err != nil {
		return // there is nothing
	}
	if err := m.health.Restore(data); err != nil {
		m.log.Debug("kept health is of no use", zap.Stringer("upstream", m), zap.Error(err))
	}
	m.open.Store(m.health.State().Open)
}

// keep writes what is known of the upstream, if that was last done so long ago.
func (m *mirror) keep(every time.Duration) {
	if m.bucket == nil {
		return
	}
	m.keeping.Lock()
	defer m.keeping.Unlock()
	if time.Since(m.kept) < every {
		return
	}
	m.kept = time.Now()
	data, err := m.health.Save()
	if err == nil {
		err = m.bucket.Put([]byte(m.String()), data, keepHealth)
	}
	if err != nil {
		m.log.Debug("health of upstream not kept", zap.Stringer("upstream", m), zap.Error(err))
	}
}
