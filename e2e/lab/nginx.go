package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// nginxConf is a static web server as one sets it up for speed: no log, and
// files stay open.
const nginxConf = `daemon off;
%s
worker_processes auto;
pid %[2]s/pid;
error_log %[2]s/error.log;
events { worker_connections 1024; }
http {
	access_log off;
	default_type application/octet-stream;
	sendfile on;
	tcp_nopush on;
	keepalive_requests 1000000000;
	open_file_cache max=100000;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	server { listen %[3]s; root %[4]s; }
}
`

// Nginx serves dir on loopback with nginx, which benchmarks compare with. It
// returns the URL.
func (l *Lab) Nginx(name, dir string) string {
	l.t.Helper()
	port, err := newPort()
	if err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	l.nginx(nil, name, port.addr, dir)
	l.t.Cleanup(port.close)
	l.WaitFor("nginx to listen", func() bool {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(l.t.Context(), "tcp", port.addr)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
	return "http://" + port.addr
}

// Nginx serves dir on a port of the host, as Lab.Nginx does on loopback.
func (h *Host) Nginx(name string, port int, dir string) string {
	h.lab.t.Helper()
	addr := fmt.Sprintf("%s:%d", h.Addr, port)
	h.lab.nginx(h, name, addr, dir)
	h.WaitListening(port)
	return "http://" + addr
}

// nginx starts nginx, which may not listen yet.
func (l *Lab) nginx(h *Host, name, addr, dir string) {
	l.t.Helper()
	home := l.Dir(name)
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // Another could not read the lab's folders.
	}
	conf := filepath.Join(home, "nginx.conf")
	l.write(conf, fmt.Sprintf(nginxConf, user, home, addr, dir))
	cmd := h.Command(context.Background(), "nginx", "-p", home, "-c", conf)
	if os.Geteuid() == 0 {
		// In a name space of its own its workers end with it, however it ends.
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
	}
	if err := cmd.Start(); err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	l.t.Cleanup(func() {
		_ = cmd.Cancel()
		_ = cmd.Wait() // Killed.
	})
}
