package substituter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/throttle"
)

var errStalled = fmt.Errorf("nothing came in %v", stallTime)

// stream is bytes on their way from a source.
type stream struct {
	body io.ReadCloser
	// transfer is set where the peers who sent the bytes await a verdict.
	transfer Transfer
	// sources are the peers that the bytes came from, where that is known from
	// the beginning.
	sources []Source
	origins origins
	// reuser says what of the bytes came out of the local store. It may be nil.
	reuser Reuser
	// again is how many bytes before the offset had to come once more, as they do
	// where the NAR is compressed.
	again int64
	// cancel ends the requests behind body. It may be nil in what a source
	// returns.
	cancel context.CancelFunc
}

// endsBy has the stream end by cancel as well.
func (st *stream) endsBy(cancel context.CancelFunc) {
	inner := st.cancel
	if st.cancel = cancel; inner != nil {
		st.cancel = func() { inner(); cancel() }
	}
}

// read is Read, but the stream ends if nothing comes in stallTime, the time not
// counted for which its line is held up.
func (st *stream) read(p []byte, line *throttle.Line) (int, error) {
	w := &watch{begin: time.Now(), line: line, held: line.Held(), cancel: st.cancel}
	w.look()
	n, err := st.body.Read(p)
	if w.end() && errors.Is(err, context.Canceled) {
		err = errStalled
	}
	return n, err
}

// watch ends a stream that stalls.
type watch struct {
	begin  time.Time
	line   *throttle.Line
	held   time.Duration // at the beginning
	cancel context.CancelFunc

	mu             sync.Mutex
	timer          *time.Timer
	ended, stalled bool
}

// look looks whether the stream has stalled, and when to look again.
func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	left := stallTime + w.line.Held() - w.held - time.Since(w.begin)
	switch {
	case w.ended:
	case left > 0:
		w.timer = time.AfterFunc(left, w.look)
	default:
		w.stalled = true
		w.cancel()
	}
}

// end ends the watch, and reports whether the stream had stalled.
func (w *watch) end() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.timer.Stop()
	return w.stalled
}

// unread is how many bytes have come in vain where so many were read.
func (st *stream) unread(read int64) int64 {
	came := st.again
	if st.transfer != nil {
		bySum, byMaskedSum := st.reused()
		came -= max(read-bySum-byMaskedSum, 0)
		for _, source := range st.transfer.Sources() {
			came += source.Bytes
		}
	}
	return max(came, 0)
}

// reused is what of the bytes read so far came out of the local store.
func (st *stream) reused() (bySum, byMaskedSum int64) {
	if st.reuser == nil {
		return 0, 0
	}
	return st.reuser.Reused()
}

// end cancels and closes the stream. What it has to say no longer matters.
func (st *stream) end() {
	st.cancel()
	_ = st.body.Close()
}
