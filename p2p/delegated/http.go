package delegated

import (
	"net/http"
	"time"

	"go.uber.org/zap"
)

// NewHTTPServer returns a server whose limits suit a Handler. Answers are small:
// whoever cannot take one in time is cut off.
func NewHTTPServer(h *Handler, log *zap.Logger) *http.Server {
	// What a client does wrong is for nobody to act upon.
	errorLog, err := zap.NewStdLogAt(log.Named("delegated"), zap.DebugLevel)
	if err != nil {
		panic("delegated: " + err.Error()) // there is such a level
	}
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      serveTimeout + 10*time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          errorLog,
	}
}
