package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/state"
)

// statusInterval is how often systemd's status line is brought up to date, at
// most: nobody reads it more often, and it is sent only where it has changed.
const statusInterval = 10 * time.Second

// notify tells systemd, if it has started the daemon.
func (d *daemon) notify(states ...string) {
	text := strings.Join(states, "\n")
	if _, err := systemd.SdNotify(false, text); err != nil {
		d.log.Warn("systemd not notified", zap.String("state", text), zap.Error(err))
	}
}

// whileReloading tells systemd that the settings are being read, which it may wait
// for, once it knows that the daemon is ready.
func (d *daemon) whileReloading(ctx context.Context, read func()) {
	if !d.awaitReady(ctx) {
		return
	}
	d.notify(systemd.SdNotifyReloading, systemd.SdNotifyMonotonicUsec())
	read()
	d.notify(systemd.SdNotifyReady)
}

// followStatus keeps the line that "systemctl status" shows up to date.
func (d *daemon) followStatus(ctx context.Context) error {
	if os.Getenv("NOTIFY_SOCKET") == "" || !d.awaitReady(ctx) {
		return nil
	}
	tick := time.NewTicker(statusInterval)
	defer tick.Stop()
	var last string
	for {
		if now := d.statusLine(); now != last {
			d.notify("STATUS=" + now)
			last = now
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// statusLine is the node in a line.
func (d *daemon) statusLine() string {
	parts := []string{"profile " + string(d.cfg.Profile)}
	if d.node != nil {
		s := d.node.Status()
		parts = append(parts, fmt.Sprintf("%d connections", s.Connected))
		if a := s.Announcing; a != nil {
			parts = append(parts, fmt.Sprintf("%d paths to announce, %d of them waiting", a.Keys, a.Waiting))
		}
	}
	if d.serves() {
		parts = append(parts, fmt.Sprintf("%d paths shared", d.catalog.Len()))
	}
	switch s := d.sharing.state(); {
	case s.Paused:
		parts = append(parts, "sharing is paused")
	case s.Metered:
		parts = append(parts, "nothing is shared: the connection is metered")
	}
	return strings.Join(parts, "; ")
}

// feedWatchdog tells systemd that the daemon is alive, as often as it wants to
// hear, for as long as that is so. Three signs of life fall due before systemd
// loses patience: it takes more than one late answer to be restarted.
func (d *daemon) feedWatchdog(ctx context.Context) error {
	patience, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		d.log.Warn("systemd's watchdog is not fed", zap.Error(err))
		return nil
	}
	if patience == 0 {
		return nil
	}
	// An idle connection would tell nothing of new ones, nor would a proxy.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience / 3}
	tick := time.NewTicker(patience / 3)
	defer tick.Stop()
	for {
		if err := d.alive(ctx, client); err == nil {
			d.notify(systemd.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			d.log.Error("no sign of life for systemd", zap.Error(err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// alive asks the daemon what Nix would: for an answer over its socket, and that
// its database can be read.
func (d *daemon) alive(ctx context.Context, client *http.Client) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, urlOf(d.http)+"/healthz", http.NoBody)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", request.URL, response.Status)
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(response.Body, 1<<10)); err != nil {
		return err
	}
	if _, err := d.db.Bucket("daemon").Get([]byte(sharingKey)); err != nil && !errors.Is(err, state.ErrNotFound) {
		return fmt.Errorf("state database: %w", err)
	}
	return nil
}
