package control

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"

	"go.uber.org/zap"
)

// caller is the process that has connected to the socket, as the kernel knows it.
// The numbers are those of the moment when it did.
type caller struct {
	pid, uid int
	// groups are all that it is in.
	groups []int
}

// callerKey is where a connection's context has its caller; there is none where
// that is not known.
type callerKey struct{}

// WithCaller is the ConnContext of a server for a NewHandler: without it the
// handler has nothing changed by anybody.
func WithCaller(ctx context.Context, conn net.Conn) context.Context {
	who, err := callerOf(conn)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, callerKey{}, who)
}

func callerOf(conn net.Conn) (*caller, error) {
	for {
		wrapped, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = wrapped.NetConn()
	}
	raw, ok := conn.(syscall.Conn)
	if !ok {
		return nil, errors.New("not a socket")
	}
	control, err := raw.SyscallConn()
	if err != nil {
		return nil, err
	}
	var who *caller
	var asked error
	if err := control.Control(func(fd uintptr) { who, asked = callerAt(int(fd)) }); err != nil {
		return nil, err
	}
	return who, asked
}

// owners are who may change something: root, the daemon's own user, and the
// members of Group.
type owners struct {
	uid int
	// gid may be noGroup.
	gid int
}

func (o owners) include(who *caller) bool {
	return who.uid == 0 || who.uid == o.uid || o.gid != noGroup && slices.Contains(who.groups, o.gid)
}

// tells reports whether a request only wants to know what its file's permissions
// let it know. The dashboard's token lets a page change something, and a profile
// shows what is in memory.
func tells(r *http.Request) bool {
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	return read && r.URL.Path != "/v1/dashboard" && !strings.HasPrefix(r.URL.Path, "/debug/")
}

// forOwners refuses what changes something to whoever is not an owner, whatever
// the permissions of the socket have become.
func (h *handler) forOwners(next http.Handler) http.Handler {
	owners := owners{uid: os.Geteuid(), gid: groupID()}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tells(r) {
			next.ServeHTTP(w, r)
			return
		}
		who, known := r.Context().Value(callerKey{}).(*caller)
		if !known {
			who = &caller{uid: -1}
		}
		fields := []zap.Field{zap.String("path", r.URL.Path), zap.Int("uid", who.uid), zap.Int("pid", who.pid)}
		if !known || !owners.include(who) {
			h.log.Warn("somebody who may not change anything was refused", fields...)
			h.refuse(w, r, &Error{
				Status: http.StatusForbidden, Message: "only root, the daemon's user and the group " + Group + " may do this",
				Hint: "add the user to the group " + Group,
			})
			return
		}
		h.log.Debug("asked to do something", fields...)
		next.ServeHTTP(w, r)
	})
}
