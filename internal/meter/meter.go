// Package meter counts the bytes of NARs by where they came from, and those
// sent to peers: by day, which is kept on the disk, and by minute and second of
// late, which is not.
package meter

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// KeptDays is how many days are kept on the disk: a year and some.
	KeptDays = 400
	// keepEvery is how often the day is written while it changes.
	keepEvery = time.Minute
	// dayFormat is that of a day, in the machine's time zone, and of its key.
	dayFormat = time.DateOnly
)

// Amounts are bytes: of NARs given to Nix, uncompressed, by their source, and of
// what peers were sent, as it travelled.
type Amounts struct {
	// Store is the local store, LAN peers on the local network, Peer all others,
	// and Reuse parts of other paths of the local store, which peers need not send.
	Store    int64 `json:"store"`
	Reuse    int64 `json:"reuse"`
	LAN      int64 `json:"lan"`
	Peer     int64 `json:"peer"`
	Upstream int64 `json:"upstream"`
	Served   int64 `json:"served"`
}

// Fetched is what Nix was given.
func (a Amounts) Fetched() int64 { return a.Store + a.Reuse + a.LAN + a.Peer + a.Upstream }

// Saved is what of that no upstream had to send.
func (a Amounts) Saved() int64 { return a.Fetched() - a.Upstream }

// Plus is the sum of both.
func (a Amounts) Plus(b Amounts) Amounts {
	return Amounts{
		Store: a.Store + b.Store, Reuse: a.Reuse + b.Reuse, LAN: a.LAN + b.LAN, Peer: a.Peer + b.Peer,
		Upstream: a.Upstream + b.Upstream, Served: a.Served + b.Served,
	}
}

// Day is the amounts of one day.
type Day struct {
	// Date is as in 2026-01-31, in the machine's time zone.
	Date string `json:"date"`
	Amounts
}

// Bucket keeps small values on the disk. An error of Get means that there is no
// value.
type Bucket interface {
	Get(key []byte) ([]byte, error)
	Put(key, value []byte, ttl time.Duration) error
	Each(ctx context.Context, f func(key, value []byte) error) error
}

// Meter counts. Its methods are safe for concurrent use; a nil *Meter counts
// nothing.
type Meter struct {
	bucket Bucket
	log    *zap.Logger

	mu sync.Mutex
	// served returns what peers were sent since the start, of which the meter has
	// seen so much. It may be nil.
	served  func() int64
	seen    int64
	today   Day
	kept    Amounts // of today, as it was last written
	seconds series
	minutes series
}

// New returns a meter that goes on with what bucket holds of today.
func New(bucket Bucket, log *zap.Logger) *Meter {
	m := &Meter{
		bucket: bucket, log: log.Named("meter"),
		seconds: newSeries(time.Second, 15*60), minutes: newSeries(time.Minute, 24*60),
	}
	m.begin(time.Now().Format(dayFormat))
	return m
}

// begin begins a day, or goes on with it; mu is held, or nobody else is there.
func (m *Meter) begin(date string) {
	m.today = Day{Date: date}
	if data, err := m.bucket.Get([]byte(date)); err == nil {
		if err := json.Unmarshal(data, &m.today.Amounts); err != nil {
			m.log.Warn("the day's traffic begins anew: what was kept cannot be read", zap.Error(err))
			m.today.Amounts = Amounts{}
		}
	}
	m.kept = m.today.Amounts
}

// Add counts bytes that have just come or gone.
func (m *Meter) Add(a Amounts) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.add(time.Now(), a)
}

func (m *Meter) add(now time.Time, a Amounts) {
	if date := now.Format(dayFormat); date != m.today.Date {
		m.keep()
		m.begin(date)
	}
	m.today.Amounts = m.today.Plus(a)
	m.seconds.add(now, a)
	m.minutes.add(now, a)
}

// ServedFrom says where to read what peers were sent since the start, in bytes.
func (m *Meter) ServedFrom(total func() int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.served = total
}

// sample counts what peers were sent since the last time; mu is held.
func (m *Meter) sample() {
	if m.served == nil {
		return
	}
	total := m.served()
	if sent := total - m.seen; sent > 0 {
		m.add(time.Now(), Amounts{Served: sent})
	}
	m.seen = total
}

// Run keeps the day on the disk until ctx ends, and once more then.
func (m *Meter) Run(ctx context.Context) error {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-tick.C:
		case <-ctx.Done():
			err = ctx.Err()
		}
		m.mu.Lock()
		m.sample()
		m.keep()
		m.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// keep writes the day if it has changed; mu is held.
func (m *Meter) keep() {
	if m.today.Amounts == m.kept {
		return
	}
	data, err := json.Marshal(m.today.Amounts)
	if err == nil {
		err = m.bucket.Put([]byte(m.today.Date), data, KeptDays*24*time.Hour)
	}
	if err != nil {
		m.log.Warn("the day's traffic is not kept", zap.Error(err))
		return
	}
	m.kept = m.today.Amounts
}

// Days returns the days of which anything is known, today included, the latest
// last, and at most the latest n. Days to come are of a clock that was wrong.
func (m *Meter) Days(ctx context.Context, n int) ([]Day, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sample()
	var days []Day
	err := m.bucket.Each(ctx, func(key, value []byte) error {
		d := Day{Date: string(key)}
		if _, err := time.Parse(dayFormat, d.Date); err != nil || d.Date >= m.today.Date || json.Unmarshal(value, &d.Amounts) != nil {
			return nil //nolint:nilerr // what cannot be read is not there
		}
		days = append(days, d)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("meter: %w", err)
	}
	days = append(days, m.today)
	return days[max(len(days)-n, 0):], nil
}

// Lately is what came and went of late.
type Lately struct {
	// Seconds are the last fifteen minutes, and Minutes the last day.
	Seconds Series `json:"seconds"`
	Minutes Series `json:"minutes"`
}

// Lately returns what came and went of late.
func (m *Meter) Lately() Lately {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sample()
	now := time.Now()
	return Lately{m.seconds.all(now), m.minutes.all(now)}
}

// Since returns the amounts of every second after a time, of which there are at
// most as many as Lately has.
func (m *Meter) Since(t time.Time) Series {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sample()
	return m.seconds.since(t, time.Now())
}
