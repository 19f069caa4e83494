package control

import (
	"context"
	"net/http"
	"os"
)

// AsOwner returns the request as one of the daemon's own user.
func AsOwner(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, &caller{uid: os.Geteuid()}))
}

// GroupsOf returns the groups of a connection's caller, or nil.
func GroupsOf(ctx context.Context) []int {
	if who, ok := ctx.Value(callerKey{}).(*caller); ok {
		return who.groups
	}
	return nil
}

// MayChange reports whether a connection's caller may, where the daemon's user and
// its group are these.
func MayChange(ctx context.Context, uid, gid int) bool {
	who, ok := ctx.Value(callerKey{}).(*caller)
	return ok && owners{uid, gid}.include(who)
}
