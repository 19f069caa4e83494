package main

import (
	"errors"
	"syscall"

	"github.com/nar-p2p/nar-p2p/internal/control"
)

// hintFor says what may be done about an error, or "".
func hintFor(err error) string {
	switch {
	case errors.Is(err, control.ErrRunning):
		return "ask it with p2pctl status; a second one needs --control-socket, --state-dir and other ports"
	case errors.Is(err, syscall.EADDRINUSE):
		return "find out who listens there with ss -ltunp; other ports are set by --substituter-listen and --p2p-listen"
	default:
		return ""
	}
}
