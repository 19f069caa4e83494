package exchange

import (
	"sync"
	"time"
)

// How a line is judged, in bytes.
const (
	// enoughSlow is how much must have gone out to call a line slow. While it
	// fills buffers it looks faster than it is, so less would not be wrong, but
	// one write could be late by chance.
	enoughSlow = 1 << 20
	// enoughFast is how much must have gone out to call a line fast: twice what
	// Linux buffers at most for one TCP connection (net.ipv4.tcp_wmem).
	enoughFast = 8 << 20
	// firstProbe and lastProbe are how much may go out compressed, without being
	// held up by the line, until the line is tried without compression: each time
	// twice as much as before.
	firstProbe = 16 << 20
	lastProbe  = 1 << 30
)

// line is the way to one peer, as far as it decides whether compression pays
// off: it does where the line is slower than the compressor. The line is judged
// by the time that a session spends in writes and in waiting for the next
// request: a client that asks for little ahead keeps no buffer full, but asks for
// more only as it receives. How fast it reads enters into that.
type line struct {
	mu sync.Mutex
	// slow says that compression pays off.
	slow bool
	// sent is how fast bytes went out.
	sent speed
	// unheld counts the bytes that were compressed since the line last held them
	// up, and probe is how many that may be.
	unheld, probe int64
}

// newLine returns a line that was not tried yet.
func newLine(slow bool) *line { return &line{slow: slow, probe: firstProbe} }

func (l *line) isSlow() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.slow
}

// wrote notes n bytes that went out, none of them compressed, and for how long
// the line held them up.
func (l *line) wrote(n int, took time.Duration, compressor float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent.add(n, took)
	// A line is to be clearly slower or faster, so that it is not called one and
	// the other by turns.
	switch now := l.sent.perSecond(); {
	case !l.slow && l.sent.bytes >= enoughSlow && now < 0.8*compressor:
		l.slow, l.sent, l.unheld = true, speed{}, 0
	case l.slow && l.sent.bytes >= enoughFast && now > compressor:
		l.slow = false
	}
}

// compressed notes what was n bytes before it was compressed, and for how long
// the line held it up. Where that is less than compressing took it may have
// become fast, and is tried.
func (l *line) compressed(n int, compressing, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if took >= compressing {
		l.unheld = 0
		return
	}
	if l.unheld += int64(n); l.unheld >= l.probe {
		l.slow, l.sent, l.unheld = false, speed{}, 0
		l.probe = min(2*l.probe, lastProbe)
	}
}

// speedWindow is how many bytes a speed looks back, about.
const speedWindow = 16 << 20

// speed is how fast something was lately.
type speed struct {
	bytes, seconds float64
}

func (s *speed) add(n int, took time.Duration) {
	s.bytes += float64(n)
	s.seconds += took.Seconds()
	if s.bytes > speedWindow {
		s.bytes /= 2
		s.seconds /= 2
	}
}

// perSecond returns bytes per second.
func (s *speed) perSecond() float64 { return s.bytes / max(s.seconds, 1e-9) }

// compressorSpeed is what one core compresses, in bytes per second, until it
// was measured.
const compressorSpeed = 276e6

// compressorMeter measures the compressor. When many streams compress at once
// each waits for the others, as it does when they write, so the two compare.
type compressorMeter struct {
	mu    sync.Mutex
	speed speed
}

func newCompressorMeter() *compressorMeter {
	return &compressorMeter{speed: speed{bytes: speedWindow / 2, seconds: speedWindow / 2 / compressorSpeed}}
}

func (m *compressorMeter) add(n int, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.speed.add(n, took)
}

func (m *compressorMeter) perSecond() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.speed.perSecond()
}

// maxSkip is how many chunks go out uncompressed, at most, before the next one
// is tried again.
const maxSkip = 64

// yield remembers whether a NAR's chunks shrink: where they do not, ever fewer
// are tried.
type yield struct{ skip, next int }

// worthTrying reports whether to compress the next chunk.
func (y *yield) worthTrying() bool {
	if y.skip > 0 {
		y.skip--
		return false
	}
	return true
}

// tried notes how a try went.
func (y *yield) tried(shrank bool) {
	if shrank {
		y.skip, y.next = 0, 0
		return
	}
	y.next = min(max(2*y.next, 1), maxSkip)
	y.skip = y.next
}
