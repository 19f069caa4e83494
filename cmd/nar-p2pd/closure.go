package main

import (
	"context"
	"fmt"
	"iter"

	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	// maxClosure bounds the paths of one walk. The closure of a large system has
	// some 10,000.
	maxClosure = 50_000
	// visitsAtOnce is how many paths are looked at at the same time.
	visitsAtOnce = 8
)

// refuse is an iterator that has only an error.
func refuse[P any](err error) iter.Seq2[*P, error] {
	return func(yield func(*P, error) bool) { yield(nil, err) }
}

// walkClosure visits paths and, unless alone is set, those that a visit says they
// refer to, each once, and gives what the visits find out. The error is the last
// that it gives.
func walkClosure[P any](ctx context.Context, paths []nix.StorePath, alone bool,
	visit func(context.Context, nix.StorePath) (*P, []nix.StorePath),
) iter.Seq2[*P, error] {
	return func(yield func(*P, error) bool) {
		seen := make(map[nix.StorePath]struct{})
		for level := paths; len(level) > 0; {
			var fresh []nix.StorePath
			for _, path := range level {
				if _, twice := seen[path]; !twice {
					seen[path] = struct{}{}
					fresh = append(fresh, path)
				}
			}
			if len(seen) > maxClosure {
				yield(nil, fmt.Errorf("the closure has more than %d paths", maxClosure))
				return
			}
			var references []nix.StorePath
			more := true
			visitAll(ctx, fresh, visit, func(p *P, refers []nix.StorePath) bool {
				references = append(references, refers...)
				more = yield(p, nil)
				return more
			})
			switch {
			case !more:
				return
			case ctx.Err() != nil:
				yield(nil, ctx.Err())
				return
			case alone:
				return
			}
			level = references
		}
	}
}

// visitAll visits the paths of one level, in any order, and calls found for each,
// one at a time, until that returns false or ctx ends.
func visitAll[P any](ctx context.Context, paths []nix.StorePath,
	visit func(context.Context, nix.StorePath) (*P, []nix.StorePath), found func(*P, []nix.StorePath) bool,
) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type visited struct {
		path   *P
		refers []nix.StorePath
	}
	all := make(chan visited)
	go func() {
		defer close(all)
		var group errgroup.Group
		defer func() { _ = group.Wait() }() // there is no error
		group.SetLimit(visitsAtOnce)
		for _, path := range paths {
			group.Go(func() error {
				if ctx.Err() == nil {
					p, refers := visit(ctx, path)
					all <- visited{p, refers}
				}
				return nil
			})
		}
	}()
	more := true
	for v := range all {
		if more = more && ctx.Err() == nil && found(v.path, v.refers); !more {
			cancel()
		}
	}
}
