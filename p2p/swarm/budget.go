package swarm

import "sync"

const (
	// runSize is the length in bytes up to which chunks are put into one run.
	runSize = 1 << 20
	// maxRuns is how many runs one transfer holds at once: 8 MiB keep a line of
	// 100 MB/s busy at 80 ms.
	maxRuns = 8
	// maxRunsTotal is how many runs all transfers together hold, beside one for
	// each: 64 MiB.
	maxRunsTotal = 64
	// smallRun is the length in bytes up to which a run gets a buffer of its own
	// size.
	smallRun = 64 << 10
)

// budget bounds the memory of all transfers together, and keeps buffers for
// use again. Nobody waits for it: a transfer that gets nothing goes on with
// what it has.
type budget struct {
	buffers sync.Pool

	mu   sync.Mutex
	used int
}

func newBudget() *budget {
	b := &budget{}
	b.buffers.New = func() any {
		buf := make([]byte, runSize)
		return &buf
	}
	return b
}

// take takes room for one run, and reports whether there was some. The first
// run of a transfer is granted in any case.
func (b *budget) take(first bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !first && b.used >= maxRunsTotal {
		return false
	}
	b.used++
	return true
}

// buffer returns a buffer of this size, at most runSize.
func (b *budget) buffer(size int) *[]byte {
	if size <= smallRun {
		buf := make([]byte, size)
		return &buf
	}
	buf, ok := b.buffers.Get().(*[]byte)
	if !ok {
		panic("swarm: pool of buffers holds something else")
	}
	return buf
}

// give gives back the room and the buffer of a run.
func (b *budget) give(buf *[]byte) {
	b.mu.Lock()
	b.used--
	b.mu.Unlock()
	if len(*buf) == runSize {
		b.buffers.Put(buf)
	}
}
