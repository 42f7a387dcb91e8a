//! Public keys, and tokens that were signed with their private keys, for tests. Each token has its
//! algorithm in lower case as `iss`, and no other claim. Made with pyca/cryptography.

/// A key of RSA.
pub(crate) const RSA: &str = "\
    -----BEGIN PUBLIC KEY-----\n\
    MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAv7dwkuIzWy78EoMbJ19o\n\
    P8UO4ugtvKCaNwPjEoqNAe5zMqQc94gxgZ0S8nvWnJnHfrXqfkma0jvZE+0FvGfU\n\
    +Zy/2ZPcuP67a3p7pErRo1Gvrkp8IH9TnxgM1Gi3bVC37UEcp5lXnEb+R0AEMu9H\n\
    piR+Di+ekWDd4EYPniTmfi66V3/4cbin5xnj5moPzmBhRbJdyNaHUnDzDT1f+d5C\n\
    QYo2dbqTKOwUZ6kUDlXiw2GU4vwXEaUoXbGxZlR7ao9BwAMhuK/shhbuCNnxEIKM\n\
    qPIFNxege5RsI8iPLwInyp+91raMC90HDs6Zkv10LF/2b3ZD1QxqeOHGFApjtND/\n\
    lwIDAQAB\n\
    -----END PUBLIC KEY-----\n";

/// A key on P-256.
pub(crate) const P256: &str = "\
    -----BEGIN PUBLIC KEY-----\n\
    MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE1D2HCIAjXdQwka605O06IbXpb5xf\n\
    BlRH+eCnKwqrwa42D50c/XDucMqVwUg6LVGHcGb4rTSLt5DNVzd5iMh+rw==\n\
    -----END PUBLIC KEY-----\n";

/// A key on P-384.
pub(crate) const P384: &str = "\
    -----BEGIN PUBLIC KEY-----\n\
    MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE7xpiCXUqoLDf+7LfZ6xXIA7dCSywY43e\n\
    ikkZuBJ7PU3C3Sq/LS/I8AV3jWRWTRYsTj/pBvAIw0EHsr5jreqRRD4HQIMBBpZA\n\
    /i9Aee6Qco5XQFbCkxK1skxxf7a2fwln\n\
    -----END PUBLIC KEY-----\n";

/// A key on P-521.
pub(crate) const P521: &str = "\
    -----BEGIN PUBLIC KEY-----\n\
    MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQANrH4qGhpyQPbVQL1gLis/QWgbdy2\n\
    QJk0qxKTlOb42SyZ+pfKVFw39tLhqsnC1i2WdzkgCNq3D/offqB2NL7jyrQAtyH7\n\
    Lru9mF2JKPlgC42/Y5IRJdZtvfnbGicRr1oDaSxUarojrAZIJtucUQalPvrBZfwg\n\
    4syL6ZOc25yGCVYGdBc=\n\
    -----END PUBLIC KEY-----\n";

/// A key of Ed25519.
pub(crate) const ED25519: &str = "\
    -----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEAgC6MCGkU0l83/o7NJO6PjvVhN7fsVVBb/Gvo8Ym20Pk=\n\
    -----END PUBLIC KEY-----\n";

/// The secret of the tokens of HS256, HS384 and HS512.
pub(crate) const SECRET: &str = "secret";

/// A token of each algorithm, with its key.
pub(crate) const TOKENS: [(&str, &str, &str); 13] = [
    (
        "ES256",
        P256,
        "\
         eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJlczI1NiJ9.5pMHtKODZBYk7wVIh8hFXDYVoT6RJv\
         wbMdodFpHu3RQ8CHZ4VmQBKNjlUrkFBv6MLH5qHizf7TznfTcUlmb7aQ",
    ),
    (
        "ES384",
        P384,
        "\
         eyJhbGciOiJFUzM4NCIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJlczM4NCJ9.iiqbcG3MBEKG6lDqgAc6J1kuQRkCZx\
         9GSKUWh6Bq8S3iUQz9WPJfV8kBtw7fe52rtzC9kNQliMWBgvMv-dIGfXbNhTLC3VsX2yMGC8SJrJLcoWQ9xjNBBz\
         o0Ep9vx47M",
    ),
    (
        "ES512",
        P521,
        "\
         eyJhbGciOiJFUzUxMiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJlczUxMiJ9.AdSnFsK1LPaeeOqaFTK4qqEOL1lGmx\
         -YXxyU__CJc1EdLRWeQ6DJ7_N3AGKbAeKhw_D64WxqxLInZerta8cK68G_ATSJSplDSW7U0iCdWvZu-qEhNnrrKg\
         IMR2SnQrG8MR_81Pi8pB-Ecqm5D2tRqWiRCAv06Xo34Mok4HJpwkCRf7A5",
    ),
    (
        "EdDSA",
        ED25519,
        "\
         eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJlZGRzYSJ9.-BySSj32vlPVYagfIqVndRVN-ITm_K\
         ffkfbzLfUBLw4VHMrXBQGcVGskxSxhXLexb3Zt8vib1bcBMZzy5GL6Dw",
    ),
    (
        "HS256",
        SECRET,
        "\
         eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJoczI1NiJ9.Yd3cHx4hx85GTdzek9kv2tjHpq6C7A\
         ZOw-gprYHZxIQ",
    ),
    (
        "HS384",
        SECRET,
        "\
         eyJhbGciOiJIUzM4NCIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJoczM4NCJ9.KlpWST2W10QHbWmRHP8F54Y5_xWpyG\
         dIIPzI0bh9CD6sykPD7G8E5YMOtvCLuqSz",
    ),
    (
        "HS512",
        SECRET,
        "\
         eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJoczUxMiJ9.LTQrQPaHr_-7JfLkPjPxN73IGyRghk\
         4yfDYzVhMrdWemKD0qsQPIXXXwUzjmHKFce-u0eoApsgaj6MroJzLaTg",
    ),
    (
        "PS256",
        RSA,
        "\
         eyJhbGciOiJQUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJwczI1NiJ9.HUzNnpd7t5FLNY1IYGL1ZzASpBYosn\
         k0d5tuz3rHZ9j4vka0jfx8NL38x3Pxe8HWNFA_gjxPZDOacEBV6mNf_rCCcG07Gcl5-NvUHbtDrice8J5wAXUV8Z\
         nZSXVWfOHjFGpSOaB4Vma8NSsnAWuXcAutU4LdUHB2ob7ltaAE812wuUv6JNfZLdki2svkKFkcsXpwlWeVl-G6ms\
         -xmtzvi07j_SGH0YtWkaZ7urOKAtSg3n2S8RjdLfd510snrRvewPe69vSgwLzjhVPILwdQHELAt4MZIh22Cvd_RM\
         pTvqlOkH6Z1yfgeMNM7sZxW3lopusBNOc7F5R9nMKrdWnbbA",
    ),
    (
        "PS384",
        RSA,
        "\
         eyJhbGciOiJQUzM4NCIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJwczM4NCJ9.lYTfILb_PfrpI_t-rq8GhO8u08Nv0f\
         nNV-UwZ1_Rlshz5WonrHRZ2TvJEebb5lyUrhWAS7vpVL2VqMUuz3GYKtYs6qutk2f6ExYIhzM8OXTIR1nKJg5T5g\
         bK8hZRFpeTXvNVeXe7fZgRINqApbIlK5z9FMY9ozHTPYAoEHXH5wGDylFNHpiSnSVqUtP6tBQ9-ImFT6zkj0NRm1\
         vlF3L_6tWTNdjL-q4xmRdj07P-jOQFwEL2ZXZcMlWX8ZBVdj3CPHsq1klk6muyXGJRgzvQekWf5wim2BiqAumCmv\
         8mk7slKBWyRy9EJvBPKI_uRz-5em8Kwb6M76iYJVBjjdZXKA",
    ),
    (
        "PS512",
        RSA,
        "\
         eyJhbGciOiJQUzUxMiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJwczUxMiJ9.u9DJbpqppV0_dNzC01QLtQkU0h8cpq\
         Ysl3Kv2k8JvSJz-QSbWZijciHCDnpVwI3WKgouD8riqNh-AUHaH5Jqj0AzPAKbJOJZ8gN6ldIGZkylh3gBB7zk1v\
         RMhkd8xyQlPoKakjRw3a4_PUc1-gppQFs07KGXKpN0C1INRei8PB_G_33eoGSJBvniFJAm_fwv-6dtOnOERJR7SG\
         4Jv64qx2l_BDDJ_YeVZHK4QPlsb5yLkUsTs0PnPuIFIYDyVu205HSdAzNm9YrMY-J7ei1C0aYFMJ93BrjKAYiuEO\
         fyB0RI5JvmfzaTHrWDNUt6-DajoellwF9LwLGEN_JI4dmgqQ",
    ),
    (
        "RS256",
        RSA,
        "\
         eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJyczI1NiJ9.m1URqfSa_EOzw2-aG_y5pamYs9TWrM\
         TRUTwDcGTK10-VxRVzul_fkZt7dZSwFryeydoIWf6jlHhZEa-0VGMklbLAnGpwvTbr543z657gUvUDDb4xr49wSt\
         SNPOvZQM7KLGCexlD9jfglnFB44ibWj1q4ix5qHEWp_oJO3gJSJQktBrHBEj6HWAdqQRuCaxY9SMcLpt-1VwLOoj\
         Jr7UmtKWRBhAJSni4wCSxmZx_ugJVr8o5XmvHBBCJYJWM8l7tkSL6TF-E-gkkwF8AdKvZr6Nj1cGxj4ZbiQGFXoB\
         9Za2zam665L5lBQCYffDqZo2u_jMIwdRekNaQTGL6RiCyupQ",
    ),
    (
        "RS384",
        RSA,
        "\
         eyJhbGciOiJSUzM4NCIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJyczM4NCJ9.qTH8O_-dxP7bYqAqMBGtNoKvbxisQw\
         i2OpJ-moO8zDXb4CmKxIQa3gJbUONjE47jo8X4Pr1pqHheOU-f8fEGZnOUsCs73NLtauUmuo-ly0k7ufesuv-dRQ\
         FcKP4-p342Dsj8CBe5L2Ts2fvKxtLzs4Kq0AN8U-mIHt_q9PnNk10Zyd6QiN5BgteTmdHLMsGyySW5oZD-iujYH5\
         E2DK1gNO1MaDo3mjs1HoPq4FH2dkfEjrCjsAoaErGzsJavK8_4qx-ZMfZK8fqsEP10YkfPQFgS53NfGn13cfXC8C\
         ynavpiVwc4vqTlmndr-B1EXuDe27oIUmeI_b-KD7qtsHfPIQ",
    ),
    (
        "RS512",
        RSA,
        "\
         eyJhbGciOiJSUzUxMiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJyczUxMiJ9.WLDiCyKF6diXbSk1Src3y8nntjB7NQ\
         evVfr6vwSAluZs8iO6b7OAb5s-dVj727BhyoO8qt7WZgKBKHOd7g01KDgD6Gx73tR2VGxqBWR8D6DpTG0PLJCI3G\
         be1pcqDI8WL7c4Z0iHbom_uSLT-kG2Wa82-H2Bl74G0CxMwgSxqnp4jKJop-ov41Yf9oufPuVkzgy-a6zC-cUS38\
         FAiEdlvKZuI35wC1jAvHMMcBI7LwgGH70VrND8ARANS7CAxeD17niOwuyA8UlzHr3ZjD4ZDeThFjoFGw7fO-RVsD\
         5rBnJbjIrSuSNFKwoQwhDBhbS-zbihUu4kAO7j76TdSP__9A",
    ),
];
