//! [`Authenticator`]: finds out who sent a request, by its signature or its token.
//!
//! If a request has both, the signature counts, because it covers the request and the token does not.

#[cfg(feature = "postgres")]
use std::sync::OnceLock;
use std::{
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use http::header;
use jiff::Timestamp;
use tokio::time::Instant;

#[cfg(feature = "postgres")]
use crate::auth::token_seal::{SealedToken, TokenSeal};
use crate::{
    auth::{
        account_changes::{AccountChange, changes},
        accounts::Accounts,
        caller::{Caller, Principal},
        keys::{SignedClaim, TOKEN_HEADER},
        login_throttle::LoginThrottle,
        project::Project,
        refused::RefusedCalls,
        replays::ReplayTable,
        sender::Sender,
        tokens::TokenStore,
    },
    clock::Clock,
    http::{codes, error::ApiError},
    log_limit::Warnings,
    metrics::ServerMetrics,
};
#[cfg(feature = "postgres")]
use dms_protocol::secret::Secret;
use dms_protocol::{auth::signer::ALGORITHM, settings::InvalidSettings};

/// The sender of a request, as far as its head identifies it.
#[derive(Debug)]
pub(crate) enum IdentityClaim {
    /// The head alone proves the caller.
    Proven(Caller),
    /// The signature proves the caller once the body has been read.
    Signed(SignedClaim),
}

impl IdentityClaim {
    /// Checks the signature, if there is one, and returns the caller.
    ///
    /// # Errors
    /// 401 APIGW.0301 when the signature is wrong.
    pub(crate) fn prove(
        self,
        authenticator: &Authenticator,
        sender: Sender<'_>,
        body: &[u8],
        metrics: &ServerMetrics,
    ) -> Result<Caller, ApiError> {
        let caller = match self {
            Self::Proven(caller) => Ok(caller),
            Self::Signed(claim) => {
                let proven = claim.prove(sender, body, &authenticator.replays, authenticator.now());
                proven.map(Caller::Known).map_err(|refusal| refusal.count(metrics))
            }
        }?;
        if let Caller::Known(principal) = &caller {
            principal.last_use.note(authenticator.clock.now_ms());
            sender.has_authenticated();
        }
        Ok(caller)
    }
}

/// Knows the accounts, the issued tokens, and the attempts that were refused.
#[derive(Debug)]
pub(crate) struct Authenticator {
    accounts: RwLock<Accounts>,
    /// The issued tokens.
    pub(crate) tokens: TokenStore,
    /// Seals tokens, where several servers accept them.
    #[cfg(feature = "postgres")]
    seal: OnceLock<TokenSeal>,
    /// Wrong passwords, which delay answers.
    pub(crate) logins: LoginThrottle,
    /// The requests that were answered with 401.
    pub(crate) refused: RefusedCalls,
    /// The signatures that were used.
    replays: ReplayTable,
    clock: Clock,
    /// Whether requests without credentials are admitted.
    open: bool,
    /// Bounds the log lines about requests without valid credentials.
    refusals: Warnings,
}

impl Authenticator {
    /// An authenticator for these projects. Tokens are valid for `token_lifetime`.
    ///
    /// # Errors
    /// Names every project, key and user that is invalid or contradicts another one.
    pub(crate) fn new(projects: Vec<Project>, token_lifetime: Duration, clock: Clock) -> Result<Self, InvalidSettings> {
        let accounts = Accounts::new(projects)?;
        Ok(Self {
            open: accounts.is_open(),
            accounts: RwLock::new(accounts),
            tokens: TokenStore::new(token_lifetime),
            #[cfg(feature = "postgres")]
            seal: OnceLock::new(),
            logins: LoginThrottle::new(),
            refused: RefusedCalls::default(),
            replays: ReplayTable::default(),
            refusals: Warnings::default(),
            clock,
        })
    }

    /// Whether the server is open: every caller is admitted without credentials.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// The current accounts. They do not change while the guard is held.
    pub(crate) fn accounts(&self) -> RwLockReadGuard<'_, Accounts> {
        self.accounts.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the keys and users of the projects with the same ids, and returns the changes. Tokens of users who were
    /// removed, or whose password changed, become invalid.
    ///
    /// # Errors
    /// As [`Accounts::with_callers_of`]. Nothing changes then.
    pub(crate) fn replace_callers(&self, projects: &[Project]) -> Result<Vec<AccountChange>, InvalidSettings> {
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        let new = accounts.with_callers_of(projects)?;
        let changes = changes(&accounts.projects, &new.projects);
        self.tokens.revise(|owner| {
            let kept = |change: &&AccountChange| change.name == owner.name && change.ends_tokens;
            if changes.iter().any(|change| kept(&change)) { None } else { new.user_again(owner) }
        });
        *accounts = new;
        Ok(changes)
    }

    /// Issues a token to a user who has just logged in. `accounts` are the accounts that accepted the password.
    ///
    /// # Errors
    /// DMS.10250002 when the system provides no random numbers.
    pub(crate) fn grant(&self, accounts: &Accounts, owner: Option<Arc<Principal>>) -> Result<String, ApiError> {
        #[cfg(feature = "postgres")]
        if let Some((seal, owner)) = self.seal.get().zip(owner.as_ref())
            && let Some(token) = self.sealed(seal, accounts, owner)
        {
            self.tokens.remember(&token, owner.clone(), self.tokens.lifetime());
            return Ok(token);
        }
        #[cfg(not(feature = "postgres"))]
        let _ = accounts;
        self.tokens.grant(owner)
    }

    #[cfg(not(feature = "postgres"))]
    fn owner(&self, token: &str) -> Result<Arc<Principal>, ApiError> {
        self.tokens.owner(token)
    }

    /// The owner of a valid token, which another server may have issued.
    #[cfg(feature = "postgres")]
    fn owner(&self, token: &str) -> Result<Arc<Principal>, ApiError> {
        let known = self.tokens.owner(token);
        match (&known, self.seal.get()) {
            (Err(error), Some(seal)) if error.code() == codes::TOKEN_INVALID => self.opened(seal, token),
            _ => known,
        }
    }

    /// Has tokens sealed from now on, so that all servers with the secret accept them.
    #[cfg(feature = "postgres")]
    pub(crate) fn seal_tokens(&self, secret: Secret) {
        // One server belongs to one cluster.
        let _ = self.seal.set(TokenSeal::new(secret));
    }

    #[cfg(feature = "postgres")]
    fn sealed(&self, seal: &TokenSeal, accounts: &Accounts, owner: &Principal) -> Option<String> {
        let (_, Some(user), Some(domain)) = owner.name.parts() else { return None };
        let project = owner.projects.first().map(|(project, _)| project.clone());
        let password = seal.check_of(&accounts.passwords(user, domain, project.as_ref())?)?;
        let expires_ms = self.clock.now_ms().saturating_add(crate::clock::whole_ms(self.tokens.lifetime()));
        let (user, domain, nonce) = (user.to_owned(), domain.to_owned(), fastrand::u64(..));
        seal.seal(&SealedToken { user, domain, project, expires_ms, password, nonce })
    }

    /// Opens a token that this server does not know. It is valid while its user has the passwords of that time.
    #[cfg(feature = "postgres")]
    fn opened(&self, seal: &TokenSeal, text: &str) -> Result<Arc<Principal>, ApiError> {
        let token = seal.open(text).ok_or_else(|| codes::TOKEN_INVALID.plain())?;
        let left = u64::try_from(token.expires_ms.saturating_sub(self.clock.now_ms())).unwrap_or(0);
        if left == 0 {
            return Err(codes::TOKEN_EXPIRED.plain());
        }
        // Locked until the token is remembered, because a change of the users looks through the remembered ones.
        let accounts = self.accounts();
        let SealedToken { user, domain, project, .. } = &token;
        let password =
            accounts.passwords(user, domain, project.as_ref()).and_then(|passwords| seal.check_of(&passwords));
        let owner = accounts.user(user, domain, project.as_ref()).filter(|_| password == Some(token.password));
        let owner = owner.ok_or_else(|| codes::TOKEN_INVALID.plain())?;
        self.tokens.remember(text, owner.clone(), Duration::from_millis(left));
        Ok(owner)
    }

    /// The current time of the wall clock.
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.clock.now_ms()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The wall clock.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Finds out from the head who sent a request, before anything is spent on the body.
    ///
    /// # Errors
    /// 401 with the gateway's code for signatures (APIGW.0301) or the service's for tokens (DMS.10240101 to 103).
    pub(crate) fn claim(&self, sender: Sender<'_>, metrics: &ServerMetrics) -> Result<IdentityClaim, ApiError> {
        if self.open {
            return Ok(IdentityClaim::Proven(Caller::Anyone));
        }
        let parts = sender.parts;
        let authorization = parts.headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
        let token = parts.headers.get(TOKEN_HEADER).map(|value| value.to_str().unwrap_or_default());
        let token = token.filter(|token| !token.is_empty());
        match (authorization, token) {
            (Some(text), _) if text.starts_with(ALGORITHM) => self
                .accounts()
                .keys
                .claim(text, sender, self.now())
                .map(IdentityClaim::Signed)
                .map_err(|refusal| refusal.count(metrics)),
            (_, Some(token)) => match self.owner(token) {
                Ok(owner) => Ok(IdentityClaim::Proven(Caller::Known(owner))),
                Err(error) if error.code() == codes::TOKEN_INVALID => Err(self.refuse(error, sender)),
                // A working client requests a new token as soon as its token has expired.
                Err(error) => Err(error),
            },
            (Some(_), None) => {
                let text = format!("verify aksk signature fail: the Authorization header is not of {ALGORITHM}");
                Err(self.refuse(codes::SIGNATURE.because(text), sender))
            }
            (None, None) => {
                Err(self.refuse(codes::TOKEN_MISSING.because("X-Auth-Token or a signature is required."), sender))
            }
        }
    }

    /// Logs a request without valid credentials, within bounds, because anybody can send them.
    fn refuse(&self, error: ApiError, sender: Sender<'_>) -> ApiError {
        if let Some(suppressed) = self.refusals.admit(Instant::now()) {
            let (peer, code) = (sender.peer.map(tracing::field::display), error.code().name);
            tracing::warn!(
                peer,
                code,
                suppressed,
                "a request without valid credentials was refused: give the client an access key or a token; if the peer is a \
                 stranger, block it"
            );
        }
        error
    }
}
