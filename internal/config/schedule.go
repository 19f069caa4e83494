package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/nar-p2p/nar-p2p/internal/schedule"
)

// minRate is the least limit, in bytes per second.
const minRate = 64 << 10

// scheduled is a list of tables [[schedule]].
type scheduled struct{ field *[]schedule.Entry }

// scheduleEntry is one of them as it is written.
type scheduleEntry struct {
	days             []string
	from, to         string
	upload, download int64
}

// keys returns the keys of a [[schedule]] table, bound to the fields of e.
func (e *scheduleEntry) keys() []tableKey {
	return []tableKey{
		{"days", list(&e.days, checkDays), "Days of the week, such as `[\"mon-thu\", \"sat\"]`. Default every day."},
		{"from", text(&e.from, checkTime), "The time of day at which it begins, such as `08:00`."},
		{
			"to", text(&e.to, checkTime),
			"The time of day at which it ends. Where that is not later than `from` it is one of the next day.",
		},
		{"upload", rate(&e.upload, minRate), "What takes the place of `p2p.upload_limit`. Default that itself."},
		{"download", rate(&e.download, minRate), "What takes the place of `fetch.download_limit`. Default that itself."},
	}
}

func (s scheduled) set(v any) error {
	tables, err := tablesOf("schedule", v, scheduleItem)
	if err != nil {
		return err
	}
	parsed := make([]schedule.Entry, len(tables))
	for i, table := range tables {
		if parsed[i], err = newScheduleEntry(table); err != nil {
			return fmt.Errorf("number %d: %w", i+1, err)
		}
	}
	*s.field = parsed
	return nil
}

func newScheduleEntry(table map[string]any) (schedule.Entry, error) {
	e := scheduleEntry{upload: schedule.Unset, download: schedule.Unset}
	if err := setKeys(e.keys(), table); err != nil {
		return schedule.Entry{}, err
	}
	parsed := schedule.Entry{Limits: schedule.Limits{Upload: e.upload, Download: e.download}}
	switch {
	case e.from == "" || e.to == "":
		return parsed, errors.New("from or to is missing")
	case e.upload == schedule.Unset && e.download == schedule.Unset:
		return parsed, errors.New("has neither upload nor download")
	}
	var errs [2]error
	parsed.From, errs[0] = schedule.ParseTime(e.from)
	parsed.To, errs[1] = schedule.ParseTime(e.to)
	for _, text := range e.days {
		d, err := schedule.ParseDays(text)
		if err != nil {
			return parsed, err
		}
		parsed.Days |= d
	}
	if len(e.days) == 0 {
		parsed.Days = schedule.EveryDay
	}
	return parsed, errors.Join(errs[:]...)
}

var errScheduleItem = errors.New(`is not of the form "mon-thu+sat;08:00-18:00;upload=1MiB/s;download=none"`)

// scheduleItem is a table in one word, for where there can be no tables.
func scheduleItem(item string) (map[string]any, error) {
	parts := strings.Split(item, ";")
	if len(parts) < 3 {
		return nil, errScheduleItem
	}
	from, to, ok := strings.Cut(parts[1], "-")
	if !ok {
		return nil, errScheduleItem
	}
	table := map[string]any{"days": strings.Split(parts[0], "+"), "from": from, "to": to}
	for _, part := range parts[2:] {
		key, value, ok := strings.Cut(part, "=")
		if !ok {
			return nil, errScheduleItem
		}
		table[key] = value
	}
	return table, nil
}

func (s scheduled) texts() []string {
	texts := make([]string, len(*s.field))
	for i, e := range *s.field {
		texts[i] = ScheduleText(e)
	}
	return texts
}

// ScheduleText writes an entry as in the environment.
func ScheduleText(e schedule.Entry) string {
	parts := []string{e.Days.String(), schedule.FormatTime(e.From) + "-" + schedule.FormatTime(e.To)}
	for _, limit := range []struct {
		name string
		rate int64
	}{{"upload", e.Upload}, {"download", e.Download}} {
		switch limit.rate {
		case schedule.Unset:
		case 0:
			parts = append(parts, limit.name+"="+noRate)
		default:
			parts = append(parts, limit.name+"="+strconv.FormatInt(limit.rate, 10)+"/s")
		}
	}
	return strings.Join(parts, ";")
}

func (scheduled) kind() string { return "list of tables" }

func (s scheduled) same(other value) bool {
	o, ok := other.(scheduled)
	return ok && reflect.DeepEqual(s.texts(), o.texts())
}

func (s scheduled) take(other value) {
	if o, ok := other.(scheduled); ok {
		*s.field = slices.Clone(*o.field)
	}
}

func checkDays(s string) error {
	_, err := schedule.ParseDays(s)
	return err
}

func checkTime(s string) error {
	_, err := schedule.ParseTime(s)
	return err
}
