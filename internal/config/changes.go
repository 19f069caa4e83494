package config

import (
	"maps"
	"slices"
)

// tables is a value whose texts do not tell all of it.
type tables interface {
	value
	// same reports whether another value, of the same key, says the same.
	same(other value) bool
	// take takes over what another value of the same key says.
	take(other value)
}

// Changes returns the keys whose values differ, in the order of the
// documentation.
func Changes(was, is *Config) []string {
	before, after := settings(was), settings(is)
	var changed []string
	for i, s := range after {
		same := slices.Equal(before[i].texts(), s.texts())
		if t, ok := s.value.(tables); ok {
			same = t.same(before[i].value)
		}
		if !same {
			changed = append(changed, s.name)
		}
	}
	return changed
}

// With returns c with the values of keys, and where they come from, taken from
// another configuration. The error says why they do not go together with the
// other values of c.
func (c *Config) With(from *Config, keys []string) (*Config, error) {
	mixed := *c
	mixed.Origins = maps.Clone(c.Origins)
	mine, theirs := settings(&mixed), settings(from)
	for i, s := range mine {
		if !slices.Contains(keys, s.name) {
			continue
		}
		if err := s.adopt(theirs[i].value); err != nil {
			return nil, err
		}
		delete(mixed.Origins, s.name)
		if origin, ok := from.Origins[s.name]; ok {
			mixed.Origins[s.name] = origin
		}
	}
	return &mixed, mixed.check()
}

// adopt sets a value to another one's of the same key. It changes nothing that
// either shares with others.
func (s setting) adopt(other value) error {
	if t, ok := s.value.(tables); ok {
		t.take(other)
		return nil
	}
	texts := other.texts()
	switch {
	case s.isList():
		return s.set(slices.Clone(texts))
	case len(texts) > 0:
		return s.set(texts[0])
	}
	switch unset := s.value.(type) {
	case textValue:
		*unset.field = ""
	case sizeValue:
		*unset.field = 0
	}
	return nil
}
