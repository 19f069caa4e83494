package exchange

import (
	"testing"
	"time"
)

// wire is a line of a given speed with a buffer at its near end, as a kernel
// has it, that a session writes to.
type wire struct {
	perSecond float64
	buffer    float64 // how much fits
	filled    float64
	spent     time.Duration
}

// pass lets time go by, in which the buffer drains.
func (w *wire) pass(d time.Duration) {
	w.spent += d
	w.filled = max(0, w.filled-w.perSecond*d.Seconds())
}

// write returns how long a write of n bytes takes.
func (w *wire) write(n int) time.Duration {
	const memory = 2e9 // bytes per second that are copied
	took := time.Duration(float64(n) / memory * float64(time.Second))
	w.pass(took)
	w.filled += float64(n)
	if over := w.filled - w.buffer; over > 0 {
		wait := time.Duration(over / w.perSecond * float64(time.Second))
		w.pass(wait)
		took += wait
	}
	return took
}

// await returns how long it takes until no more than ahead bytes are under way,
// when a client asks for more.
func (w *wire) await(ahead float64) time.Duration {
	if w.filled <= ahead {
		return 0
	}
	wait := time.Duration((w.filled - ahead) / w.perSecond * float64(time.Second))
	w.pass(wait)
	return wait
}

// upload sends a NAR over a line as a session does, to a client that asks for so
// many bytes ahead, and returns how much of it went out compressed. Compressed,
// it is a third.
func upload(l *line, w *wire, size int, ahead float64) (compressed int) {
	const piece = 128 << 10
	const compressor = 276_000_000
	for range size / piece {
		took := w.await(ahead)
		if !l.isSlow() {
			l.wrote(piece, took+w.write(piece), compressor)
			continue
		}
		compressed += piece
		const compressing = time.Second * piece / compressor
		w.pass(compressing)
		l.compressed(piece, compressing, took+w.write(piece/3))
	}
	return compressed
}

func TestLine(t *testing.T) {
	const buffer = 4 << 20
	tests := []struct {
		name      string
		perSecond float64
		slow      bool    // what is believed at first
		least     float64 // the part that is to be compressed, at least and at most
		most      float64
	}{
		{"fast", 1e9, false, 0, 0},
		{"fast, thought slow", 1e9, true, 0, 0.05},
		{"a gigabit", 118e6, false, 0.9, 1},
		{"a gigabit, thought slow", 118e6, true, 0.9, 1},
		{"50 Mbit/s", 6.25e6, false, 0.98, 1},
		{"50 Mbit/s, thought slow", 6.25e6, true, 1, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			const size = 1 << 30
			for _, ahead := range []float64{1 << 20, 64 << 20} { // less than the buffer, and more
				got := float64(upload(newLine(tt.slow), &wire{perSecond: tt.perSecond, buffer: buffer}, size, ahead)) / size
				if got < tt.least || got > tt.most {
					t.Errorf("%.0f bytes ahead: %.3f of the bytes went out compressed, want %.2f to %.2f", ahead, got, tt.least, tt.most)
				}
			}
		})
	}
}

// A line that changes is judged anew.
func TestLineChanges(t *testing.T) {
	l := newLine(true)
	w := &wire{perSecond: 6.25e6, buffer: 4 << 20}
	upload(l, w, 64<<20, 8<<20)
	w.perSecond = 1e9
	if got := upload(l, w, 256<<20, 8<<20); got > 64<<20 {
		t.Errorf("%d bytes went out compressed over a line that had become fast", got)
	}
	w.perSecond = 6.25e6
	if got := upload(l, w, 256<<20, 8<<20); got < 200<<20 {
		t.Errorf("%d bytes went out compressed over a line that had become slow", got)
	}
}

func TestYield(t *testing.T) {
	var y yield
	tried := 0
	for range 1000 {
		if y.worthTrying() {
			tried++
			y.tried(false)
		}
	}
	if tried > 25 {
		t.Errorf("%d of 1000 chunks that do not shrink were tried", tried)
	}
	tried = 0
	for range 1000 {
		if y.worthTrying() {
			tried++
			y.tried(true)
		}
	}
	if tried < 1000-maxSkip {
		t.Errorf("%d of 1000 chunks that shrink were tried", tried)
	}
}
