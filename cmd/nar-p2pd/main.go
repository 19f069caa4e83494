// Command nar-p2pd is a peer-to-peer binary cache for Nix: a substituter on
// localhost that fetches from peers, and shares with them what this machine's
// store holds and its owner allows.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/internal/logging"
	"github.com/nar-p2p/nar-p2p/internal/version"
)

// helpWidth is how wide --help is, in characters.
const helpWidth = 100

func main() {
	// The first signal ends the daemon in order. Then it calls release: a second
	// signal, no longer caught, ends it at once.
	ctx, release := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, release, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, pflag.ErrHelp) {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintln(os.Stderr, "nar-p2pd:", strings.TrimSpace(line))
		}
		if hint := hintFor(err); hint != "" {
			fmt.Fprintf(os.Stderr, "nar-p2pd: hint: %s\n", hint)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, release func(), args []string, stdout, stderr io.Writer) error {
	flags := pflag.NewFlagSet("nar-p2pd", pflag.ContinueOnError)
	flags.SetOutput(stdout)
	flags.Usage = func() { fmt.Fprintf(stdout, "Usage: nar-p2pd [flags]\n\n%s", flags.FlagUsagesWrapped(helpWidth)) }
	showVersion := flags.Bool("version", false, "print the version")
	checkOnly := flags.Bool("check", false, "check the settings and the files that they name, and start nothing")
	config.AddFlags(flags)
	if err := flags.Parse(args); err != nil {
		return usageError{err}
	}
	if flags.NArg() > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", flags.Arg(0))}
	}
	if *showVersion {
		_, err := fmt.Fprintln(stdout, "nar-p2pd", version.String())
		return err
	}
	cfg, err := config.Load(flags, os.Environ())
	if err != nil {
		return err
	}
	if *checkOnly {
		return check(cfg, stdout)
	}
	log, level, err := logging.New(stderr, cfg.Log.Level, cfg.Log.Format)
	if err != nil {
		return err
	}
	logging.CaptureLibp2p(log)
	settings := newReloader(cfg, func() (*config.Config, error) { return config.Load(flags, os.Environ()) }, log)
	settings.add(always(func(c *config.Config) {
		_ = level.UnmarshalText([]byte(c.Log.Level)) // which was checked
	}), "log.level")
	return runDaemon(ctx, release, cfg, settings, log)
}
