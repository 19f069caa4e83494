package upstream

import (
	"fmt"
	"path"
)

// filter says by name which store paths are wanted from a cache. Patterns are
// those of path.Match, for what follows the hash part.
type filter struct {
	include []string // empty: all
	exclude []string
}

func newFilter(include, exclude []string) (filter, error) {
	for _, patterns := range [][]string{include, exclude} {
		for _, pattern := range patterns {
			if _, err := path.Match(pattern, ""); err != nil {
				return filter{}, fmt.Errorf("filter %q: %w", pattern, err)
			}
		}
	}
	return filter{include, exclude}, nil
}

func (f filter) passes(name string) bool {
	return (len(f.include) == 0 || matchesAny(f.include, name)) && !matchesAny(f.exclude, name)
}

func matchesAny(patterns []string, name string) bool {
	for _, pattern := range patterns {
		if match, err := path.Match(pattern, name); err == nil && match {
			return true
		}
	}
	return false
}
