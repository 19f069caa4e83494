package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// value is a field of Config together with how it is read and checked.
type value interface {
	// set takes what a TOML file holds, or the text (for lists: texts) of an
	// environment variable or flag.
	set(v any) error
	// texts gives the field as it would be written in an environment variable,
	// one element per item of a list.
	texts() []string
	// kind names the form of the value for the documentation.
	kind() string
}

type textValue struct {
	field *string
	check func(string) error
	form  string
}

func text(field *string, check func(string) error) value {
	return textValue{field, check, "text"}
}

func oneOf(field *string, words ...string) value {
	return textValue{field, func(s string) error {
		if !slices.Contains(words, s) {
			return fmt.Errorf("is not one of %s", strings.Join(words, ", "))
		}
		return nil
	}, "one of `" + strings.Join(words, "`, `") + "`"}
}

func (t textValue) set(v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("%v: is not text", v)
	}
	if err := t.check(s); err != nil {
		return fmt.Errorf("%q: %w", s, err)
	}
	*t.field = s
	return nil
}

func (t textValue) texts() []string {
	if *t.field == "" {
		return nil
	}
	return []string{*t.field}
}

func (t textValue) kind() string { return t.form }

// maxItems bounds every list.
const maxItems = 1000

type listValue struct {
	field *[]string
	check func(string) error
}

func list(field *[]string, check func(string) error) value { return listValue{field, check} }

func (l listValue) set(v any) error {
	items, err := itemsOf(v)
	if err != nil {
		return err
	}
	for _, item := range items {
		if err := l.check(item); err != nil {
			return fmt.Errorf("%q: %w", item, err)
		}
	}
	*l.field = items
	return nil
}

// itemsOf splits texts at blanks and commas, which no item can contain. A list
// that is given replaces the default, and an empty one leaves nothing.
func itemsOf(v any) ([]string, error) {
	items := []string{}
	switch v := v.(type) {
	case string:
		items = append(items, strings.FieldsFunc(v, func(r rune) bool { return strings.ContainsRune(", \t\n", r) })...)
	case []string:
		for _, s := range v {
			more, _ := itemsOf(s)
			items = append(items, more...)
		}
	case []any:
		for _, item := range v {
			s, ok := item.(string)
			if !ok {
				return nil, fmt.Errorf("%v: is not text", item)
			}
			items = append(items, s)
		}
	default:
		return nil, fmt.Errorf("%v: is not a list", v)
	}
	if len(items) > maxItems {
		return nil, fmt.Errorf("has %d items, more than %d", len(items), maxItems)
	}
	return items, nil
}

func (l listValue) texts() []string { return *l.field }
func (l listValue) kind() string    { return "list" }

type numberValue struct {
	field    *int
	min, max int
}

func number(field *int, least, most int) value { return numberValue{field, least, most} }

func (n numberValue) set(v any) error {
	i, err := strconv.Atoi(fmt.Sprint(v))
	if err != nil {
		return fmt.Errorf("%v: is not a whole number", v)
	}
	if i < n.min || i > n.max {
		return fmt.Errorf("%d: is not between %d and %d", i, n.min, n.max)
	}
	*n.field = i
	return nil
}

func (n numberValue) texts() []string { return []string{strconv.Itoa(*n.field)} }
func (n numberValue) kind() string    { return fmt.Sprintf("number from %d to %d", n.min, n.max) }

type booleanValue struct{ field *bool }

func boolean(field *bool) value { return booleanValue{field} }

func (b booleanValue) set(v any) error {
	parsed, err := strconv.ParseBool(fmt.Sprint(v))
	if err != nil {
		return fmt.Errorf("%v: is neither true nor false", v)
	}
	*b.field = parsed
	return nil
}

func (b booleanValue) texts() []string { return []string{strconv.FormatBool(*b.field)} }
func (b booleanValue) kind() string    { return "`true` or `false`" }

type durationValue struct {
	field    *time.Duration
	min, max time.Duration
}

func duration(field *time.Duration, least, most time.Duration) value {
	return durationValue{field, least, most}
}

func (d durationValue) set(v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("%v: is not a duration with its unit, such as \"5s\"", v)
	}
	parsed, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q: is not a duration such as \"5s\"", s)
	}
	if parsed < d.min || parsed > d.max {
		return fmt.Errorf("%q: is not between %v and %v", s, d.min, d.max)
	}
	*d.field = parsed
	return nil
}

func (d durationValue) texts() []string { return []string{d.field.String()} }
func (d durationValue) kind() string    { return fmt.Sprintf("duration from %v to %v", d.min, d.max) }

type sizeValue struct{ field *int64 }

func size(field *int64) value { return sizeValue{field} }

func (z sizeValue) set(v any) error {
	s := fmt.Sprint(v)
	n, err := ParseSize(s)
	if err != nil {
		return fmt.Errorf("%q: %w", s, err)
	}
	*z.field = n
	return nil
}

// ParseSize parses a number of bytes with an optional binary unit.
func ParseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, " BKMGTi")
	var shift uint
	switch strings.TrimSpace(s[len(digits):]) {
	case "", "B":
	case "KiB":
		shift = 10
	case "MiB":
		shift = 20
	case "GiB":
		shift = 30
	case "TiB":
		shift = 40
	default:
		return 0, errors.New("is not a size in B, KiB, MiB, GiB or TiB")
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return 0, errors.New("is not a size such as \"64MiB\"")
	}
	if n > math.MaxInt64>>shift {
		return 0, errors.New("is too large")
	}
	return int64(n) << shift, nil
}

// formatSize is the reverse of ParseSize, in the largest unit that is exact.
func formatSize(n int64) string {
	for i, unit := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if shift := 40 - 10*i; n>>shift<<shift == n {
			return strconv.FormatInt(n>>shift, 10) + unit
		}
	}
	return strconv.FormatInt(n, 10)
}

func (z sizeValue) texts() []string {
	if *z.field == 0 {
		return nil
	}
	return []string{formatSize(*z.field)}
}

func (z sizeValue) kind() string { return "size" }

// noRate is how a rate without a limit is written.
const noRate = "none"

// rateValue is in bytes per second, 0 for none.
type rateValue struct {
	field *int64
	min   int64
}

func rate(field *int64, least int64) value { return rateValue{field, least} }

func (r rateValue) set(v any) error {
	s := fmt.Sprint(v)
	if s == noRate {
		*r.field = 0
		return nil
	}
	amount, perSecond := strings.CutSuffix(s, "/s")
	n, err := ParseSize(amount)
	switch {
	case err != nil || !perSecond:
		return fmt.Errorf("%q: is neither a rate such as \"10MiB/s\" nor \"none\"", s)
	case n < r.min:
		return fmt.Errorf("%q: is less than %dKiB/s; sharing is switched off by profile \"consume\", and for a while by p2pctl pause", s, r.min>>10)
	}
	*r.field = n
	return nil
}

func (r rateValue) texts() []string {
	if *r.field == 0 {
		return []string{noRate}
	}
	return []string{strconv.FormatInt(*r.field, 10) + "/s"}
}

func (r rateValue) kind() string {
	return fmt.Sprintf("rate of at least %dKiB/s, or `none`", r.min>>10)
}

type upstreams struct{ field *[]Upstream }

func (u upstreams) set(v any) error {
	tables, err := tablesOf("upstream", v, func(item string) (map[string]any, error) { return map[string]any{"url": item}, nil })
	if err != nil {
		return err
	}
	parsed := make([]Upstream, len(tables))
	for i, table := range tables {
		if err := parsed[i].set(table); err != nil {
			return fmt.Errorf("number %d: %w", i+1, err)
		}
	}
	*u.field = parsed
	return nil
}

// tablesOf returns the tables of a list of them that is called name. Where there
// can be no tables, as in the environment, parse makes one of each item.
func tablesOf(name string, v any, parse func(item string) (map[string]any, error)) ([]map[string]any, error) {
	if _, single := v.(map[string]any); single {
		return nil, fmt.Errorf("is a list of tables: write [[%s]]", name)
	}
	list, ok := v.([]any)
	if !ok || len(list) > 0 && isText(list[0]) {
		items, err := itemsOf(v)
		if err != nil {
			return nil, err
		}
		tables := make([]map[string]any, len(items))
		for i, item := range items {
			if tables[i], err = parse(item); err != nil {
				return nil, fmt.Errorf("%q: %w", item, err)
			}
		}
		return tables, nil
	}
	if len(list) > maxItems {
		return nil, fmt.Errorf("has %d items, more than %d", len(list), maxItems)
	}
	tables := make([]map[string]any, len(list))
	for i, item := range list {
		if tables[i], ok = item.(map[string]any); !ok {
			return nil, fmt.Errorf("%v: is not a table [[%s]]", item, name)
		}
	}
	return tables, nil
}

func isText(v any) bool {
	_, ok := v.(string)
	return ok
}

// addressValue is a URL that may hold a password, which errors must not tell.
type addressValue struct{ field *string }

func (a addressValue) set(v any) error {
	s, ok := v.(string)
	if !ok {
		return errors.New("is not text")
	}
	if err := checkURL(s); err != nil {
		if u, parseErr := url.Parse(s); parseErr == nil {
			return fmt.Errorf("%q: %w", u.Redacted(), err)
		}
		return err
	}
	*a.field = s
	return nil
}

func (a addressValue) texts() []string { return []string{*a.field} }
func (a addressValue) kind() string    { return "text" }

// tableKey is one key of a table in a list of them.
type tableKey struct {
	name string
	value
	doc string
}

// keys returns the keys of an [[upstream]] table, bound to the fields of u.
func (u *Upstream) keys() []tableKey {
	return []tableKey{
		{"url", addressValue{&u.URL}, "The cache's http or https URL. It may hold a user name and password."},
		{
			"priority", number(&u.Priority, 0, 1000),
			"The cache with the lowest number is asked first; of several with the same the quickest, by a factor of two. Default `40`.",
		},
		{
			"public_keys", list(&u.PublicKeys, checkPublicKey),
			"Keys of the cache's own, trusted beside `trust.public_keys`. They make the cache private.",
		},
		{
			"private", boolean(&u.Private),
			"Strangers are never asked for a path that is known only from here. Default `false`; a cache with credentials or keys of its own is always private.",
		},
		{
			"netrc", text(&u.Netrc, checkAbsolute),
			"A file with the login for the cache's host, in the form of Nix's `netrc-file`. It is read again when it changes.",
		},
		{
			"token_file", text(&u.TokenFile, checkAbsolute),
			"A file with a bearer token for the cache. It is read again when it changes.",
		},
		{
			"include", list(&u.Include, checkGlob),
			"Patterns of names (what follows the hash part), such as `acme-*`. Where there are any, the cache counts as not having what none of them matches.",
		},
		{
			"exclude", list(&u.Exclude, checkGlob),
			"Patterns of names that the cache counts as not having.",
		},
	}
}

// set reads the keys of one [[upstream]] table.
func (u *Upstream) set(table map[string]any) error {
	u.Priority = upstreamPriority
	if err := setKeys(u.keys(), table); err != nil {
		return err
	}
	if u.URL == "" {
		return errors.New("url is missing")
	}
	return nil
}

// setKeys reads the keys of a table.
func setKeys(keys []tableKey, table map[string]any) error {
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = key.name
	}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		i := slices.Index(names, name)
		if i < 0 {
			return fmt.Errorf("unknown key %q: its keys are %s", name, strings.Join(names, ", "))
		}
		if err := keys[i].set(table[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (u upstreams) same(other value) bool {
	o, ok := other.(upstreams)
	return ok && reflect.DeepEqual(*u.field, *o.field)
}

func (u upstreams) take(other value) {
	if o, ok := other.(upstreams); ok {
		*u.field = slices.Clone(*o.field)
	}
}

func (u upstreams) texts() []string {
	urls := make([]string, len(*u.field))
	for i, up := range *u.field {
		urls[i] = up.URL
	}
	return urls
}

func (u upstreams) kind() string { return "list of tables" }
