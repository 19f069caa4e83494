package substituter

import (
	"context"
	"errors"
	"io"
	"time"
)

// stream is bytes on their way from a source.
type stream struct {
	body io.ReadCloser
	// transfer is set where the peers who sent the bytes await a verdict.
	transfer Transfer
	// sources are the peers that the bytes came from, where that is known from
	// the beginning.
	sources []Source
	// cancel ends the requests behind body. It may be nil in what a source
	// returns.
	cancel context.CancelFunc
	from   *entry
	first  []byte // read already
	// waited is the time spent in Read, and got what came in it, in bytes, since
	// slow last judged them.
	waited time.Duration
	got    int
}

// prefetch reads the first piece: what a source is started for.
func (st *stream) prefetch() error {
	buffer := make([]byte, pieceSize)
	for {
		n, err := st.read(buffer)
		if n > 0 {
			st.first = buffer[:n]
			return nil
		}
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
}

// read is Read, but the stream ends if nothing comes in stallTime.
func (st *stream) read(p []byte) (int, error) {
	if len(st.first) > 0 {
		n := copy(p, st.first)
		st.first = st.first[n:]
		return n, nil
	}
	timer := time.AfterFunc(stallTime, st.cancel)
	defer timer.Stop()
	begin := time.Now()
	n, err := st.body.Read(p)
	st.waited += time.Since(begin)
	st.got += n
	return n, err
}

// slow reports whether less than slowBytes came in stallTime. The time in which
// the client did not read does not count.
func (st *stream) slow() bool {
	if st.waited < stallTime {
		return false
	}
	slow := st.got < slowBytes
	st.waited, st.got = 0, 0
	return slow
}

// end cancels and closes the stream. What it has to say no longer matters.
func (st *stream) end() {
	if st.cancel != nil {
		st.cancel()
	}
	_ = st.body.Close()
}
