package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"mime"
	"net/http"
	"path"
	"strings"
)

//go:embed static
var files embed.FS

// static serves the page and what belongs to it. A browser keeps it, and asks
// each time whether it is still the same.
func static() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/dashboard/")
		if r.URL.Path == "/" {
			name = "index.html"
		}
		data, err := files.ReadFile(path.Join("static", path.Clean("/"+name)))
		if err != nil {
			writeText(w, http.StatusNotFound, "not found")
			return
		}
		digest := sha256.Sum256(data)
		tag := `"` + hex.EncodeToString(digest[:16]) + `"`
		h := w.Header()
		h.Set("ETag", tag)
		h.Set("Cache-Control", "no-cache")
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		kind := mime.TypeByExtension(path.Ext(name))
		switch path.Ext(name) { // which does not depend on the machine
		case ".js":
			kind = "text/javascript; charset=utf-8"
		case ".html", "":
			kind = "text/html; charset=utf-8"
		case ".css":
			kind = "text/css; charset=utf-8"
		case ".svg":
			kind = "image/svg+xml"
		}
		h.Set("Content-Type", kind)
		_, _ = w.Write(data) // a client that has gone is no concern of ours
	})
}
