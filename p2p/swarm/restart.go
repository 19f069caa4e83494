package swarm

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
)

const (
	// maxAttempts is how often a transfer begins.
	maxAttempts = 8
	// voteTime is how long a large NAR's bytes are kept back, from the first chunk
	// on, for votes on a manifest that has not earned that they are used.
	voteTime = 250 * time.Millisecond
	// voteTimeAgain is that for a NAR of any size, once its hash has proved a manifest
	// wrong: more of them may be.
	voteTimeAgain = 2 * time.Second
	// heldSize is the size in bytes up to which NARs are held whole until they are
	// verified, whatever the manifest has earned.
	heldSize = 16 << 20
)

// fetch fetches the NAR under one manifest after the other, until one of them
// leads to the end.
func (t *Transfer) fetch(ctx context.Context) error {
	var failure error
	for {
		a := t.attempt()
		err := a.run(ctx)
		if err == nil && t.outvotedLate(ctx, a) {
			continue
		}
		if err == nil {
			t.swarm.doubts.clear(t.want.Hash)
			return nil
		}
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if errors.Is(err, errBetter) {
			continue // with the attempt that has taken its place
		}
		if failure == nil || !errors.Is(err, ErrNoProviders) {
			failure = err // else nobody is left who has not failed
		}
		next, ok := t.reconsider(a, err)
		if !ok && t.recalled != nil {
			next, ok = t.relent(), true
		}
		if !ok || !t.replace(a, next) {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.swarm.doubts.add(t.want.Hash, t.dropped, t.suspects)
			return failure
		}
	}
}

// outvotedLate waits for votes on a manifest under which all has come already, if there
// were lies about the NAR, and reports whether a better one takes its place.
func (t *Transfer) outvotedLate(ctx context.Context, a *attempt) bool {
	t.mu.Lock()
	fixed := t.fixed
	t.mu.Unlock()
	if fixed || a.earned() || !t.swarm.doubts.lied(t.want.Hash) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, voteTimeAgain)
	defer cancel()
	for all := false; ; {
		if root, better := a.outvoted(); better {
			return a.yield(a, preference{root: root, known: true})
		}
		if all || ctx.Err() != nil {
			return false
		}
		select {
		case <-t.votes.changed:
		case <-t.voted:
			all = true
		case <-ctx.Done():
		}
	}
}

// reconsider says which manifest to try after an attempt has failed.
func (t *Transfer) reconsider(a *attempt, err error) (preference, bool) {
	sender, _, _ := a.plan.used()
	t.suspect(a)
	if root, _, ok := t.votes.best(t.doubts); ok {
		return preference{root: root, known: true}, true
	}
	return preference{}, sender != "" || a.prefer != preference{} || errors.Is(err, errNoManifest)
}

// suspect takes note of a manifest that is given up.
func (t *Transfer) suspect(a *attempt) {
	sender, root, known := a.plan.used()
	t.mu.Lock()
	defer t.mu.Unlock()
	if sender != "" {
		t.suspects[sender] = struct{}{}
	}
	if known {
		t.dropped[root] = struct{}{}
	}
	if a.prefer.known {
		t.dropped[a.prefer.root] = struct{}{}
	}
}

// relent has those tried too with whom an earlier transfer has failed: there is
// nobody else.
func (t *Transfer) relent() preference {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.dropped, func(root chunk.Root, _ struct{}) bool {
		_, recalled := t.recalled[root]
		return recalled
	})
	clear(t.suspects)
	t.recalled = nil
	return preference{}
}

// yield puts an attempt under a better manifest in the place of one, and reports
// false where it is too late for that.
func (t *Transfer) yield(old *attempt, to preference) bool {
	if !t.replace(old, to) {
		return false
	}
	t.suspect(old)
	return true
}

// replace puts another attempt in the place of one, unless it is too late for
// that.
func (t *Transfer) replace(old *attempt, prefer preference) bool {
	t.mu.Lock()
	if t.fixed || t.begun == maxAttempts {
		t.mu.Unlock()
		return false
	}
	t.begun++
	t.now = t.newAttempt(prefer)
	old.window.mu.Lock()
	t.wasted += old.window.tally.verified + old.window.tally.wasted
	old.window.mu.Unlock()
	t.mu.Unlock()
	old.window.close() // whoever reads goes on with the new one
	t.swarm.restarts.Inc()
	t.swarm.log.Debug("NAR is fetched anew under another manifest", zap.Stringer("narHash", t.want.Hash))
	return true
}

// out takes note of a provider that is not to be tried again.
func (t *Transfer) out(p peer.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.outs[p] = struct{}{}
}

func (t *Transfer) isOut(p peer.ID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, out := t.outs[p]
	return out
}

// doubts reports whether a manifest has been tried in vain, or proved wrong.
func (t *Transfer) doubts(root chunk.Root) bool {
	t.mu.Lock()
	_, dropped := t.dropped[root]
	t.mu.Unlock()
	return dropped || t.swarm.doubts.refuted(t.want.Hash, root)
}

// doubtful reports whether a peer has sent a manifest that was given up.
func (t *Transfer) doubtful(p peer.ID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, suspect := t.suspects[p]
	return suspect
}

// awaitStart waits for the first chunk, and for votes where bytes under a
// manifest that has them could be used at once, or where there were lies.
func (t *Transfer) awaitStart() error {
	patience := voteTime
	if t.swarm.doubts.lied(t.want.Hash) {
		patience = voteTimeAgain
	} else if t.want.Size <= heldSize {
		patience = 0
	}
	var deadline <-chan time.Time
	for {
		a := t.attempt()
		err := a.window.awaitStart()
		if t.attempt() != a {
			continue
		}
		if err != nil || patience == 0 || a.earned() {
			return err
		}
		if deadline == nil {
			timer := time.NewTimer(patience)
			defer timer.Stop()
			deadline = timer.C
		}
		select {
		case <-deadline:
			return nil
		case <-time.After(voteTime / 25):
		}
		select {
		case <-t.voted:
			// Where the votes are for another one, it is about to take this one's place.
			if _, better := a.outvoted(); !better {
				return nil
			}
		default:
		}
	}
}
