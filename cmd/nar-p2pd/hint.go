package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/nar-p2p/nar-p2p/internal/control"
)

// usageError is a mistake in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// storeError is why the store cannot be opened.
type storeError struct{ error }

func (e storeError) Unwrap() error { return e.error }

// hintFor says what may be done about an error, or "".
func hintFor(err error) string {
	var usage usageError
	var noStore storeError
	var socket *net.OpError
	denied := errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
	switch {
	case errors.As(err, &usage):
		return "see nar-p2pd --help"
	case errors.As(err, &noStore):
		return fmt.Sprintf("see that user %d can read it, or that a nix-daemon runs; with --store-kind=none nothing is shared, and all is fetched as ever", os.Geteuid())
	case errors.Is(err, control.ErrRunning):
		return "ask it with p2pctl status; a second one needs --control-socket, --state-dir and other ports"
	case isIn(err, syscall.EADDRINUSE):
		return "find out who listens there with ss -ltunp; other ports are set by --substituter-listen, --p2p-listen and --serve-routing"
	case isIn(err, syscall.EADDRNOTAVAIL):
		return "no interface of this machine has that address, see ip address; others are set by --substituter-listen, --p2p-listen and --serve-routing"
	case denied && errors.As(err, &socket) && socket.Net == "tcp":
		return "ports below 1024 need CAP_NET_BIND_SERVICE; another is set by --substituter-listen"
	case denied:
		return fmt.Sprintf("nar-p2pd runs as user %d, who needs access; other places are set by --state-dir and --control-socket", os.Geteuid())
	default:
		return ""
	}
}

// isIn looks for cause in the text too: libp2p does not wrap why it cannot
// listen.
func isIn(err, cause error) bool {
	return errors.Is(err, cause) || strings.Contains(err.Error(), cause.Error())
}
