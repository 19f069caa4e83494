package lan

import (
	"context"
	"fmt"

	"github.com/mdlayher/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// watch tells of changes of interfaces and their addresses until ctx ends.
func watch(ctx context.Context, changes chan<- struct{}, log *zap.Logger) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{
		Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR,
	})
	if err != nil {
		log.Warn("changes of the network are looked for and not told", zap.Error(err))
		return poll(ctx, changes)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	for {
		// What has changed is looked at elsewhere. An error such as messages that
		// were lost is as good as a change.
		_, err := conn.Receive()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if err := pause(ctx, settleTime); err != nil {
				return fmt.Errorf("lan: %w", err)
			}
		}
		change(changes)
	}
}
