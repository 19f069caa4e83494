package config

import (
	"net/url"
	"strings"
)

// OriginDefault is that of what nobody has set.
const OriginDefault = "default"

// Effective is a key of the configuration with its value as it came out in the
// end.
type Effective struct {
	Key string `json:"key"`
	// Values are as in an environment variable, one for each item of a list.
	// There are none where nothing is set. Passwords in URLs are left out.
	Values []string `json:"values"`
	// Origin is the file, "$VARIABLE" or "--flag" that has set it, or OriginDefault.
	Origin string `json:"origin"`
}

// Keys returns the names of all keys, in the order of the documentation.
func Keys() []string {
	table := settings(defaults())
	names := make([]string, len(table))
	for i, s := range table {
		names[i] = s.name
	}
	return names
}

// Effective returns all keys in the order of the documentation.
func (c *Config) Effective() []Effective {
	table := settings(c)
	all := make([]Effective, len(table))
	for i, s := range table {
		all[i] = Effective{Key: s.name, Values: []string{}, Origin: OriginDefault}
		for _, text := range s.texts() {
			all[i].Values = append(all[i].Values, withoutPassword(text))
		}
		if origin, set := c.Origins[s.name]; set {
			all[i].Origin = origin
		}
	}
	return all
}

func withoutPassword(text string) string {
	if !strings.Contains(text, "://") {
		return text
	}
	u, err := url.Parse(text)
	if err != nil {
		return text
	}
	return u.Redacted()
}

// File returns the TOML file that a daemon without --config would read, or ""
// where there is none; an error says that it cannot be looked for.
func File(environ []string) (string, error) { return findFile("", environmentOf(environ)) }

// Files lists where a configuration file is looked for where none is named, in
// order of precedence.
func Files(environ []string) []string { return defaultFiles(environmentOf(environ)) }
