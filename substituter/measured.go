package substituter

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/throttle"
)

// measuredNAR is the least number of bytes that tell how fast NARs come. Of
// fewer the time is that of the first byte.
const measuredNAR = 1 << 20

// measuredBody is the bytes of a NAR on their way, of which the upstream's
// health hears when they break off or end.
type measuredBody struct {
	io.ReadCloser
	m    *mirror
	name string
	// ended returns the error of the context that ends it, and late whether that
	// was because it took too long.
	ended func() error
	late  func() bool
	asked time.Time
	whole bool        // from the first byte on
	begun func() bool // to be called when the first byte has come
	line  *throttle.Line

	bytes  int64
	waited time.Duration // for them
	broken bool
}

// Read implements io.Reader.
func (b *measuredBody) Read(p []byte) (int, error) {
	began, held := time.Now(), b.line.Held()
	n, err := b.ReadCloser.Read(p)
	took := max(time.Since(began)-(b.line.Held()-held), 0)
	if n > 0 && b.bytes == 0 {
		b.begin()
	}
	b.bytes += int64(n)
	b.waited += took
	if err == nil || errors.Is(err, io.EOF) || b.broken {
		return n, err
	}
	switch {
	case took >= stallTime && b.bytes > 0: // a stream that stalls is ended by us
		b.breakOff(fmt.Sprintf("NAR: nothing in %v", took.Round(time.Second)))
	case took >= stallTime, b.bytes == 0 && b.late():
		b.broken = true
		b.m.health.HungNAR(b.asked, fmt.Sprintf("NAR: nothing in %v", took.Round(time.Second)))
		b.m.logChange()
	case b.ended() == nil:
		b.breakOff("NAR: " + b.m.problem(err))
	}
	return n, err
}

// begin notes that the first byte has come. Where that was not the NAR's first,
// all before it may have had to be decompressed.
func (b *measuredBody) begin() {
	b.begun()
	took := time.Duration(0)
	if b.whole {
		took = time.Since(b.asked)
	}
	b.m.health.Began(took)
}

func (b *measuredBody) breakOff(problem string) {
	b.broken = true
	b.m.health.BrokeOff(b.asked, b.name, problem)
	b.m.logChange()
}

// Close implements io.Closer.
func (b *measuredBody) Close() error {
	b.begun()
	switch {
	case b.broken || b.bytes == 0:
	case b.bytes >= measuredNAR:
		b.m.health.Delivered(b.bytes, b.waited)
	default:
		b.m.health.Delivered(0, 0)
	}
	return b.ReadCloser.Close()
}
