package fleet

import "fmt"

// Refusal is an answer to a caller that cannot have what it asks for: the fleet is in order, the request is not.
type Refusal struct {
	// Code is a short fixed word: "token-used", "job-ended".
	Code string
	// Detail is a sentence for people: what happened, to what, what to do.
	Detail string
}

func (r *Refusal) Error() string { return r.Detail }

func refuse(code, format string, a ...any) error {
	return &Refusal{Code: code, Detail: fmt.Sprintf(format, a...)}
}

// Codes of refusals.
const (
	CodeTokenUnknown      = "token-unknown" // never given out, or too old
	CodeTokenMissing      = "no-such-token" // an operator names one that is not there
	CodeTokenUsed         = "token-used"    // redeemed by another key
	CodeTokenExpired      = "token-expired"
	CodeRevoked           = "revoked"         // this boot's certificate was revoked
	CodeUnauthorised      = "unauthorised"    // no certificate, or none of a boot that is known
	CodeForbidden         = "forbidden"       // the caller's role does not include it
	CodeMachineUnknown    = "machine-unknown" // no inventory yet, or not this machine's certificate
	CodeJobUnknown        = "job-unknown"
	CodeDeploymentUnknown = "deployment-unknown"
	CodeGroupUnknown      = "group-unknown"
	CodeGroupExists       = "group-exists"
	CodeJobEnded          = "job-ended"
	CodeClaimLost         = "claim-lost" // a later boot of the machine claimed the job
	CodeReceiptWrong      = "receipt-wrong"
	CodeImageUnknown      = "image-unknown"
	CodeUserUnknown       = "user-unknown"
	CodeUserExists        = "user-exists"
	CodeLogin             = "login-wrong" // name or password
	CodeTooMany           = "too-many"    // try again later
	CodeChanged           = "changed"     // by somebody else since it was read
	CodeInvalid           = "invalid"     // the request says something that cannot be
	CodeAmbiguous         = "ambiguous"
	CodeCodeUnknown       = "code-unknown"
	CodeVersionExists     = "image-exists" // versions of an image never change
	CodeCaptureBusy       = "capture-busy" // another capture makes this version
	CodeImageUsed         = "image-used"   // a deployment uses it
	CodeMachineBusy       = "machine-busy" // it has another job
	CodeUnconfirmed       = "unconfirmed"  // what cannot be taken back has to be confirmed
)
