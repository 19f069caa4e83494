// Package metered finds out whether the machine's connection is one that is paid
// for by volume, such as a phone's: it asks NetworkManager, over the system's D-Bus
// (https://networkmanager.dev/docs/api/latest/gdbus-org.freedesktop.NetworkManager.html),
// and hears from it when that changes.
package metered

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/godbus/dbus/v5"
	"go.uber.org/zap"
)

const (
	service  = "org.freedesktop.NetworkManager"
	path     = dbus.ObjectPath("/org/freedesktop/NetworkManager")
	property = "Metered"

	properties = "org.freedesktop.DBus.Properties"
	bus        = "org.freedesktop.DBus"

	// askTimeout is how long NetworkManager may take to answer.
	askTimeout = 5 * time.Second
	// retryInterval is how often it is tried to reach a bus that is not there.
	retryInterval = time.Minute
	// maxSignals is how many signals wait; each only says that there is something
	// to ask.
	maxSignals = 16
)

// The values of the property (NMMetered) that say yes: it was set so, or it is
// likely.
const (
	yes      uint32 = 1
	guessYes uint32 = 3
)

// Verdict is what is known of the connection.
type Verdict struct {
	Metered bool
	// Unknown is why it is not known, "" where it is.
	Unknown string
}

// Config says whom to ask.
type Config struct {
	// Address is that of the bus; "" is the system's.
	Address string
	// Retry is how often it is tried to reach a bus that is not there; 0 is a
	// minute.
	Retry time.Duration
}

// Watch calls told with what is known, at first and after each change, until ctx
// ends. Where there is no bus, or no NetworkManager on it, it waits for them.
func Watch(ctx context.Context, cfg Config, told func(Verdict), log *zap.Logger) error {
	log = log.Named("metered")
	retry := cfg.Retry
	if retry == 0 {
		retry = retryInterval
	}
	last, first := Verdict{}, true
	tell := func(v Verdict) {
		if first || v != last {
			last, first = v, false
			told(v)
		}
	}
	for {
		err := follow(ctx, cfg.Address, tell)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		log.Debug("no word from NetworkManager", zap.Error(err), zap.Duration("retry", retry))
		tell(Verdict{Unknown: fmt.Sprintf("the system's D-Bus cannot be reached: %v", err)})
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

var errClosed = errors.New("the connection with the bus has ended")

// follow tells of NetworkManager's verdicts until the bus is lost or ctx ends.
func follow(ctx context.Context, address string, tell func(Verdict)) error {
	conn, err := connect(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	signals := make(chan *dbus.Signal, maxSignals)
	conn.Signal(signals)
	for _, match := range [][]dbus.MatchOption{
		{dbus.WithMatchSender(service), dbus.WithMatchObjectPath(path), dbus.WithMatchInterface(properties), dbus.WithMatchMember("PropertiesChanged"), dbus.WithMatchArg(0, service)},
		{dbus.WithMatchSender(bus), dbus.WithMatchInterface(bus), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, service)},
	} {
		if err := conn.AddMatchSignalContext(ctx, match...); err != nil {
			return err
		}
	}
	for {
		tell(ask(ctx, conn))
		select {
		case _, ok := <-signals:
			if !ok {
				return errClosed
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func connect(ctx context.Context, address string) (*dbus.Conn, error) {
	if address == "" {
		return dbus.ConnectSystemBus(dbus.WithContext(ctx))
	}
	return dbus.Connect(address, dbus.WithContext(ctx))
}

// ask asks NetworkManager, which is not started for it.
func ask(ctx context.Context, conn *dbus.Conn) Verdict {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var value dbus.Variant
	call := conn.Object(service, path).CallWithContext(ctx, properties+".Get", dbus.FlagNoAutoStart, service, property)
	if err := call.Store(&value); err != nil {
		var refusal dbus.Error
		if errors.As(err, &refusal) && (refusal.Name == bus+".Error.NameHasNoOwner" || refusal.Name == bus+".Error.ServiceUnknown") {
			return Verdict{Unknown: "NetworkManager does not run"}
		}
		return Verdict{Unknown: fmt.Sprintf("NetworkManager does not say: %v", err)}
	}
	switch n, ok := value.Value().(uint32); {
	case !ok:
		return Verdict{Unknown: fmt.Sprintf("NetworkManager's answer is of type %s", value.Signature())}
	case n == 0:
		return Verdict{Unknown: "NetworkManager does not know"}
	default:
		return Verdict{Metered: n == yes || n == guessYes}
	}
}
