package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/toml/v2"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

const (
	// fileFlag and fileEnv name the configuration file.
	fileFlag = "config"
	fileEnv  = envPrefix + "CONFIG"
	// ctlEnv belongs to p2pctl, but may well be set where the daemon runs.
	ctlEnv = envPrefix + "SOCKET"
)

// AddFlags defines --config and a flag for every key.
func AddFlags(flags *pflag.FlagSet) {
	flags.SortFlags = false
	flags.String(fileFlag, "", "the TOML file to read")
	for _, s := range settings(defaults()) {
		help := s.summary()
		if s.isList() {
			help += " May be repeated."
		}
		if given := s.texts(); len(given) > 0 {
			help += " (default " + strings.Join(given, ", ") + ")"
		}
		if s.isList() {
			flags.StringArray(s.flag(), nil, help)
		} else {
			flags.String(s.flag(), "", help)
		}
	}
}

// Load gathers and checks the settings. The flags come from AddFlags and have
// been parsed; environ is as from os.Environ.
func Load(flags *pflag.FlagSet, environ []string) (*Config, error) {
	vars := environmentOf(environ)
	c := defaults()
	table := settings(c)
	for _, load := range []func() error{
		func() error { return c.loadFile(table, flags, vars) },
		func() error { return c.loadEnvironment(table, environ) },
		func() error { return c.loadFlags(table, flags) },
		func() error { return c.finish(vars) },
	} {
		if err := load(); err != nil {
			return nil, fmt.Errorf("config: %w", err)
		}
	}
	return c, nil
}

// apply sets the fields whose keys k has. Each source has a Koanf of its own,
// so that an error can name where the value came from, as origin says it.
func (c *Config) apply(k *koanf.Koanf, table []setting, origin func(setting) string) error {
	for _, s := range table {
		if !k.Exists(s.name) {
			continue
		}
		if err := s.set(k.Get(s.name)); err != nil {
			return fmt.Errorf("%s: %w", origin(s), err)
		}
		c.Origins[s.name] = strings.TrimSuffix(origin(s), ": "+s.name)
	}
	return nil
}

func (c *Config) loadFile(table []setting, flags *pflag.FlagSet, vars environment) error {
	named, err := flags.GetString(fileFlag)
	if err != nil {
		return err
	}
	path, err := findFile(named, vars)
	if err != nil || path == "" {
		return err
	}
	c.File = path
	k := koanf.New(".")
	if err := k.Load(file.Provider(path), toml.Parser()); err != nil {
		return fmt.Errorf("%s: %w", position(path, err), err)
	}
	known := names(table, func(s setting) string { return s.name })
	for _, key := range k.Keys() {
		if isBelow(key, known) || isEmptyTable(k, key, known) {
			continue
		}
		return fmt.Errorf("%s: unknown key %q%s", path, key, suggestion(key, known))
	}
	return c.apply(k, table, func(s setting) string { return path + ": " + s.name })
}

// position adds to path the line of a mistake in it, where the error tells.
func position(path string, err error) string {
	var at interface{ Position() (row, column int) }
	if !errors.As(err, &at) {
		return path
	}
	row, _ := at.Position()
	return fmt.Sprintf("%s:%d", path, row)
}

// isBelow reports whether key is known, or is in a table that stands where the
// value of one should. The latter has its own check say so.
func isBelow(key string, known []string) bool {
	return slices.ContainsFunc(known, func(name string) bool { return key == name || strings.HasPrefix(key, name+".") })
}

// isEmptyTable reports whether key is a table of ours, such as [log], with
// nothing in it.
func isEmptyTable(k *koanf.Koanf, key string, known []string) bool {
	table, ok := k.Get(key).(map[string]any)
	return ok && len(table) == 0 && slices.ContainsFunc(known, func(name string) bool { return strings.HasPrefix(name, key+".") })
}

// findFile returns the file to read, or "" for none. A file that is asked for,
// by the flag's value or the environment, must exist.
func findFile(named string, vars environment) (string, error) {
	if path := cmp.Or(named, vars[fileEnv]); path != "" {
		return path, nil
	}
	for _, path := range defaultFiles(vars) {
		_, err := os.Stat(path)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", nil
}

func (c *Config) loadEnvironment(table []setting, environ []string) error {
	byEnv := make(map[string]setting, len(table))
	for _, s := range table {
		byEnv[s.env()] = s
	}
	var unknown []string
	k := koanf.New(".")
	provider := env.Provider(".", env.Opt{
		Prefix:      envPrefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			s, ok := byEnv[name]
			if !ok && name != fileEnv && name != ctlEnv {
				unknown = append(unknown, name)
			}
			return s.name, value
		},
	})
	if err := k.Load(provider, nil); err != nil {
		return err
	}
	if len(unknown) > 0 {
		return fmt.Errorf("unknown environment variable %s%s", unknown[0], suggestion(unknown[0], names(table, setting.env)))
	}
	return c.apply(k, table, func(s setting) string { return "$" + s.env() })
}

func (c *Config) loadFlags(table []setting, flags *pflag.FlagSet) error {
	byFlag := make(map[string]setting, len(table))
	for _, s := range table {
		byFlag[s.flag()] = s
	}
	k := koanf.New(".")
	provider := posflag.ProviderWithFlag(flags, ".", nil, func(f *pflag.Flag) (string, any) {
		return byFlag[f.Name].name, posflag.FlagVal(flags, f)
	})
	if err := k.Load(provider, nil); err != nil {
		return err
	}
	return c.apply(k, table, func(s setting) string { return "--" + s.flag() })
}

func names(table []setting, name func(setting) string) []string {
	all := make([]string, len(table))
	for i, s := range table {
		all[i] = name(s)
	}
	return all
}

// suggestion asks whether the name that takes the fewest edits to reach was
// meant, unless it takes too many.
func suggestion(name string, known []string) string {
	nearest := slices.MinFunc(known, func(a, b string) int { return distance(name, a) - distance(name, b) })
	if distance(name, nearest) > max(2, len(name)/2) {
		return ""
	}
	return fmt.Sprintf(": did you mean %q?", nearest)
}

// distance is Levenshtein's, over bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
