package reuse

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	// maxJobs is how many paths are indexed at once on demand, and maxSmallJobs how
	// many more of up to smallJob bytes, which need not wait for large ones. Each
	// takes about a core, and 3 MiB.
	maxJobs      = 2
	maxSmallJobs = 2
	smallJob     = 4 << 20
	// maxRelatives is how many relatives are indexed for one path, and
	// maxRelativeShare and minRelatives bound how large they may be all together:
	// so many times the path's own size, or so many bytes if that is more.
	maxRelatives     = 3
	maxRelativeShare = 4
	minRelatives     = 64 << 20
	// jobTime bounds the indexing on demand for one path, which goes on when that
	// has been fetched: it may be of use to the next.
	jobTime = 30 * time.Second
	// maxShare is the part of the index, as a divisor, that one path may take.
	maxShare = 4
)

// Why a path is indexed, as metrics call it.
const (
	onDemand     = "demand"
	byFetch      = "fetched"
	inBackground = "background"
)

// job is a path that is being indexed, or waits to be.
type job struct {
	mu sync.Mutex
	// front is up to where the path is indexed, in bytes.
	front int64
	// grown is closed, and replaced, when front has moved or the job has ended.
	grown chan struct{}
	ended bool
}

func newJob() *job { return &job{grown: make(chan struct{})} }

func (j *job) advance(front int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.front = front
	j.tell()
}

func (j *job) end() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ended = true
	j.tell()
}

// tell wakes those who wait; mu is held.
func (j *job) tell() {
	close(j.grown)
	j.grown = make(chan struct{})
}

// state returns how far the job is, and what is closed when it is further.
func (j *job) state() (front int64, ended bool, grown <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.front, j.ended, j.grown
}

// indexed reports whether all of a path is indexed.
func (x *Index) indexed(part nix.HashPart) bool {
	r, ok := x.records.get(part)
	return ok && r.complete
}

// task is a job to do.
type task struct {
	part nix.HashPart
	job  *job
	mine bool // and not somebody else's
}

// wanting returns the relatives that are to be indexed for a path.
func (x *Index) wanting(relatives []member, size int64) (tasks []task) {
	room := max(maxRelativeShare*size, minRelatives)
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, m := range relatives[:min(len(relatives), maxRelatives)] {
		if x.closed {
			return nil
		}
		if x.indexed(m.part) {
			continue
		}
		if room -= m.size; room < 0 {
			break
		}
		t := task{part: m.part, job: x.jobs[m.part]}
		if t.job == nil {
			t.job, t.mine = newJob(), true
			x.jobs[m.part] = t.job
		}
		tasks = append(tasks, t)
	}
	return tasks
}

// perform does the tasks that are nobody else's, one after the other.
func (x *Index) perform(ctx context.Context, tasks []task) {
	for _, t := range tasks {
		if !t.mine {
			continue
		}
		if err := x.onDemand(ctx, t); err != nil && ctx.Err() == nil {
			x.log.Debug("relative not indexed", zap.Stringer("hashPart", t.part), zap.Error(err))
		}
		x.finish(t)
	}
}

// finish ends a task.
func (x *Index) finish(t task) {
	x.mu.Lock()
	delete(x.jobs, t.part)
	x.mu.Unlock()
	t.job.end()
}

func (x *Index) onDemand(ctx context.Context, t task) error {
	info, err := x.store.Info(ctx, t.part)
	if err != nil {
		return err
	}
	small := x.smallSlots
	if info.NARSize > smallJob {
		small = nil // blocks for ever
	}
	select {
	case small <- struct{}{}:
		defer func() { <-small }()
	case x.slots <- struct{}{}:
		defer func() { <-x.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return x.index(ctx, info, onDemand, t.job, nil)
}

// index indexes a path, and tells job how far it is. Limit, if there is one, is
// asked before so many bytes are read.
func (x *Index) index(ctx context.Context, info *narstore.PathInfo, why string, j *job, limit func(bytes int) error) error {
	if info.NARSize > chunk.MaxNARSize {
		return nil
	}
	nar, err := x.store.Open(ctx, info)
	if err != nil {
		return wrap(info, err)
	}
	defer nar.Close()
	now := time.Now().Unix()
	part := info.Path.HashPart()
	r := record{hash: info.NARHash, size: info.NARSize, indexed: now, used: now, public: x.public(info)}
	x.records.put(part, r) // first: an entry without a record is dead
	source := &limited{Reader: io.NewSectionReader(nar, 0, info.NARSize), limit: limit}
	err = chunk.Split(ctx, source, info.NARSize, func(chunks []chunk.Chunk) error {
		if err := x.entries.add(part, all(chunks)); err != nil {
			return err
		}
		r.entries += countAll(all(chunks))
		last := &chunks[len(chunks)-1]
		j.advance(last.Offset + int64(last.Length))
		if r.cost() > x.cfg.MaxBytes/maxShare {
			return errTooLarge
		}
		return nil
	})
	x.countIndexed(why, source.bytes)
	// What is too large is not tried again.
	r.complete = err == nil || errors.Is(err, errTooLarge)
	x.records.put(part, r)
	x.makeRoom()
	if !r.complete {
		return wrap(info, err)
	}
	return nil
}

// errTooLarge says that a path would take too much of the index.
var errTooLarge = errors.New("it takes too much of the index")

// limited reads no faster than limit lets it, and counts.
type limited struct {
	io.Reader
	limit func(bytes int) error
	bytes int64
}

func (l *limited) Read(b []byte) (int, error) {
	if l.limit != nil {
		b = b[:min(len(b), maxBurst)]
		if err := l.limit(len(b)); err != nil {
			return 0, err
		}
	}
	n, err := l.Reader.Read(b)
	l.bytes += int64(n)
	return n, err
}
