package upstream

import (
	"context"
	"io"

	"github.com/nar-p2p/nar-p2p/internal/throttle"
)

// pacedReader reads a body as a line lets it come. What counts is what has
// travelled, compressed as it may be. While nothing is read the cache is held up,
// as soon as the buffers on the way are full.
type pacedReader struct {
	r io.Reader
	// await waits for a turn and pays for n bytes.
	await func(n int64) error
	// owed are bytes that have come and are not paid for: a turn must not last
	// while the cache is waited for.
	owed int64
}

// paced reads r over the line of ctx, if there is one.
func paced(ctx context.Context, r io.Reader) io.Reader {
	line := throttle.From(ctx)
	if line == nil {
		return r
	}
	return &pacedReader{r: r, await: func(n int64) error {
		pay, err := line.Await(ctx)
		if err == nil {
			pay(n)
		}
		return err
	}}
}

func (p *pacedReader) Read(b []byte) (int, error) {
	if err := p.await(p.owed); err != nil {
		return 0, err
	}
	n, err := p.r.Read(b)
	p.owed = int64(n)
	return n, err
}
