package delegated

import "net/http"

// uncached keeps an answer out of the caches of others. Boxo's server declares
// all of them public.
type uncached struct {
	http.ResponseWriter
	written bool
}

var _ http.Flusher = (*uncached)(nil)

// WriteHeader implements http.ResponseWriter.
func (u *uncached) WriteHeader(status int) {
	u.declare()
	u.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (u *uncached) Write(data []byte) (int, error) {
	u.declare()
	return u.ResponseWriter.Write(data)
}

// Flush implements http.Flusher, which boxo's server wants of its writer.
func (u *uncached) Flush() {
	if f, ok := u.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

func (u *uncached) declare() {
	if !u.written {
		u.written = true
		u.Header().Set("Cache-Control", "no-store")
	}
}
