package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

const (
	// vnetHeader is the length of struct virtio_net_hdr, which stands before each
	// packet and says how to cut it and what of its checksum is missing.
	vnetHeader = 10
	// ethernetHeader counts on a line, though there is none here.
	ethernetHeader = 14
	// maxPacket is the longest that the kernel hands over, its header included.
	maxPacket = vnetHeader + 64<<10
)

// openTUN makes a network device eth0 in a namespace, whose packets are read
// from and written to the file that it returns, one at a time and without ever
// waiting. With segments set none is longer than the device's MTU; otherwise
// those of one connection may come together.
func openTUN(ns string, segments bool) (fd int, err error) {
	err = inNamespace(ns, func() error {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
			return os.NewSyscallError("open /dev/net/tun", err)
		}
		request, err := unix.NewIfreq("eth0")
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			_ = unix.Close(fd)
			return os.NewSyscallError("TUNSETIFF", err)
		}
		// Nobody here looks at checksums.
		offload := unix.TUN_F_CSUM
		if !segments {
			offload |= unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_USO4 | unix.TUN_F_USO6
		}
		if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offload); err != nil {
			_ = unix.Close(fd)
			return os.NewSyscallError("TUNSETOFFLOAD", err)
		}
		return nil
	})
	return fd, err
}

// inNamespace calls f on a thread that is in a network namespace.
func inNamespace(ns string, f func() error) error {
	// The thread must not end: what it has started would end with it (ownGroup).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	other, err := os.Open("/run/netns/" + ns)
	if err != nil {
		return err
	}
	defer other.Close()
	if err := unix.Setns(int(other.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("setns %s: %w", ns, err)
	}
	err = f()
	if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
		panic("lab: no way back to the own network namespace: " + err.Error())
	}
	return err
}

// destination returns where an IPv4 packet goes that was read from a TUN device.
func destination(frame []byte) (netip.Addr, bool) {
	if len(frame) < vnetHeader+20 || frame[vnetHeader]>>4 != 4 {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4([4]byte(frame[vnetHeader+16 : vnetHeader+20])), true
}

// wireSize returns how many bytes of a line a packet takes that was read from a
// TUN device: each one that it is cut into has headers of its own.
func wireSize(frame []byte) int {
	size := len(frame) - vnetHeader
	headers, segment := int(binary.NativeEndian.Uint16(frame[2:])), int(binary.NativeEndian.Uint16(frame[4:]))
	if frame[1] == 0 || segment == 0 || headers >= size { // VIRTIO_NET_HDR_GSO_NONE
		return size + ethernetHeader
	}
	segments := (size - headers + segment - 1) / segment
	return size + (segments-1)*headers + segments*ethernetHeader
}
