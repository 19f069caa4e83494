package main

import (
	"errors"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/internal/control"
)

// The exit codes.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitNotFound    = 4
	exitCorrupt     = 5
)

const exitCodes = `Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  nar-p2pd is not reachable
  4  not found: no such path, or no provider
  5  the bytes are not those of their record; nothing was kept`

// usageError is an error in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// errNotFound says that there is nothing of what was asked for.
var errNotFound = errors.New("not found")

// errCorrupt says that a NAR is not the one that its record describes.
var errCorrupt = errors.New("corrupt")

// advice is an error with what may be done about it.
type advice struct {
	error
	hint string
}

func (a advice) Unwrap() error { return a.error }

func exitCode(err error) int {
	var usage usageError
	var refusal *control.Error
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, control.ErrUnreachable):
		return exitUnreachable
	case errors.Is(err, errCorrupt):
		return exitCorrupt
	case errors.Is(err, errNotFound), errors.Is(err, control.ErrNotFound):
		return exitNotFound
	case errors.As(err, &refusal) && refusal.Status == http.StatusNotFound:
		return exitNotFound
	default:
		return exitFailure
	}
}

// hintFor says what may be done about an error of cmd, or "".
func hintFor(cmd *cobra.Command, err error) string {
	var usage usageError
	var refusal *control.Error
	var advised advice
	switch {
	case errors.As(err, &advised):
		return advised.hint
	case errors.As(err, &usage):
		return "see " + cmd.CommandPath() + " --help"
	case errors.Is(err, control.ErrUnreachable):
		return "start nar-p2pd, or name its socket with --socket or $" + socketEnv
	case errors.Is(err, control.ErrNotFound):
		return "p2pctl status tells whether the upstreams answer and how many peers are connected"
	case errors.As(err, &refusal):
		return refusal.Hint
	default:
		return ""
	}
}

// usage marks the errors of an argument check.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}
