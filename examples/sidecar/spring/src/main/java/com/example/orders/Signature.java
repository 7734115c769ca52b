package com.example.orders;

import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/** The signature of the sidecar's requests. */
class Signature {
  /** Whether the sidecar has signed this request, with this key, in the last five minutes. */
  static boolean isGenuine(String key, Map<String, String> headers, byte[] body) throws GeneralSecurityException {
    Map<String, String> sorted = lower(headers);
    Matcher match = Pattern.compile("t=(\\d{1,12}),v2=([0-9a-f]{64})").matcher(sorted.getOrDefault("dms-signature-v2", ""));
    if (!match.matches()) {
      return false;
    }
    StringBuilder text = new StringBuilder(match.group(1)).append('\n');
    sorted.forEach((name, value) -> {
      boolean signed = List.of("dms-", "ce-").stream().anyMatch(name::startsWith) && !name.startsWith("dms-signature");
      text.append(signed ? name + ":" + value + "\n" : "");
    });
    Mac mac = Mac.getInstance("HmacSHA256");
    mac.init(new SecretKeySpec(key.getBytes(StandardCharsets.UTF_8), "HmacSHA256"));
    mac.update(text.append('\n').toString().getBytes(StandardCharsets.UTF_8));
    byte[] wanted = mac.doFinal(body);
    long age = Math.abs(System.currentTimeMillis() / 1000 - Long.parseLong(match.group(1)));
    return MessageDigest.isEqual(wanted, HexFormat.of().parseHex(match.group(2))) && age < 300;
  }

  private static Map<String, String> lower(Map<String, String> headers) {
    Map<String, String> sorted = new TreeMap<>();
    headers.forEach((name, value) -> sorted.put(name.toLowerCase(Locale.ROOT), value));
    return sorted;
  }
}
