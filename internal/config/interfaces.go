package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"reflect"
	"slices"
	"strings"
)

// Interface says what is done on some interfaces of the machine.
type Interface struct {
	// Match are patterns of names, and networks.
	Match            []string
	LAN, MDNS, Share bool
}

// places is a list of tables [[interface]].
type places struct{ field *[]Interface }

// keys returns the keys of an [[interface]] table, bound to the fields of i.
func (i *Interface) keys() []tableKey {
	return []tableKey{
		{
			"match", list(&i.Match, checkMatch),
			"Patterns of names, such as `wl*`, and networks, such as `10.1.0.0/16`, in which the machine has an address. Names do not match the loopback interface.",
		},
		{
			"lan", boolean(&i.LAN),
			"Whether private addresses there are those of neighbours, whose word counts more than that of strangers, who are asked first, and who are served in profile `lan`. Default `true`.",
		},
		{"mdns", boolean(&i.MDNS), "Whether neighbours there are looked for, and told of this node. Default `true`."},
		{
			"share", boolean(&i.Share),
			"Whether peers that are reached there are answered. Where it leads to the internet and they are not, nothing is announced either. Default `true`.",
		},
	}
}

func (p places) set(v any) error {
	tables, err := tablesOf("interface", v, interfaceItem)
	if err != nil {
		return err
	}
	parsed := make([]Interface, len(tables))
	for n, table := range tables {
		i := &parsed[n]
		i.LAN, i.MDNS, i.Share = true, true, true
		if err := setKeys(i.keys(), table); err != nil {
			return fmt.Errorf("number %d: %w", n+1, err)
		}
		if len(i.Match) == 0 {
			return fmt.Errorf("number %d: match is missing", n+1)
		}
	}
	*p.field = parsed
	return nil
}

// interfaceItem is a table in one word, for where there can be no tables.
func interfaceItem(item string) (map[string]any, error) {
	parts := strings.Split(item, ";")
	table := map[string]any{"match": strings.Split(parts[0], "+")}
	for _, part := range parts[1:] {
		key, value, ok := strings.Cut(part, "=")
		if !ok {
			return nil, errors.New(`is not of the form "wl*+10.1.0.0/16;lan=false;mdns=false;share=false"`)
		}
		table[key] = value
	}
	return table, nil
}

func (p places) texts() []string {
	texts := make([]string, len(*p.field))
	for n, i := range *p.field {
		texts[n] = strings.Join(i.Match, "+")
		for _, key := range i.keys()[1:] {
			texts[n] += ";" + key.name + "=" + key.texts()[0]
		}
	}
	return texts
}

func (places) kind() string { return "list of tables" }

func (p places) same(other value) bool {
	o, ok := other.(places)
	return ok && reflect.DeepEqual(p.texts(), o.texts())
}

func (p places) take(other value) {
	if o, ok := other.(places); ok {
		*p.field = slices.Clone(*o.field)
	}
}

func checkMatch(s string) error {
	if strings.Contains(s, "/") {
		if _, err := netip.ParsePrefix(s); err != nil {
			return errors.New("is not a network such as 10.1.0.0/16")
		}
		return nil
	}
	if _, err := path.Match(s, ""); err != nil || s == "" {
		return errors.New("is neither a pattern of names such as wl* nor a network such as 10.1.0.0/16")
	}
	return nil
}
