package config

import (
	"reflect"
	"slices"
)

// Changes returns the keys whose values differ, in the order of the
// documentation.
func Changes(was, is *Config) []string {
	before, after := settings(was), settings(is)
	var changed []string
	for i, s := range after {
		same := slices.Equal(before[i].texts(), s.texts())
		if _, tables := s.value.(upstreams); tables {
			same = reflect.DeepEqual(was.Upstreams, is.Upstreams)
		}
		if !same {
			changed = append(changed, s.name)
		}
	}
	return changed
}

// Adopt takes the values of keys, and where they come from, over from another
// configuration. It changes no value that c shares with others.
func (c *Config) Adopt(from *Config, keys []string) error {
	mine, theirs := settings(c), settings(from)
	for i, s := range mine {
		if !slices.Contains(keys, s.name) {
			continue
		}
		if texts := theirs[i].texts(); s.isList() {
			if err := s.set(texts); err != nil {
				return err
			}
		} else if len(texts) > 0 {
			if err := s.set(texts[0]); err != nil {
				return err
			}
		}
		delete(c.Origins, s.name)
		if origin, ok := from.Origins[s.name]; ok {
			c.Origins[s.name] = origin
		}
	}
	return nil
}
