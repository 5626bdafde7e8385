package dev.foredeck.server;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParseException;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.core.exc.StreamConstraintsException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.foredeck.core.Limits;
import dev.foredeck.core.Problem;
import dev.foredeck.core.ProblemException;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;

/// Turns the bytes of a body into a JSON object, within bounds. Thread-safe.
final class JsonBody {
  private static final int NUMBER_LENGTH = 64;
  private static final int NAME_LENGTH = 1024;

  private final Limits limits;
  private final JsonMapper mapper;

  JsonBody(Limits limits) {
    this.limits = limits;
    JsonFactory factory =
        JsonFactory.builder()
            .streamReadConstraints(
                StreamReadConstraints.builder()
                    .maxNestingDepth(limits.jsonDepth())
                    .maxDocumentLength(limits.bodyBytes())
                    .maxStringLength(limits.bodyBytes())
                    .maxNumberLength(NUMBER_LENGTH)
                    .maxNameLength(NAME_LENGTH)
                    .build())
            .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
            .build();
    this.mapper =
        JsonMapper.builder(factory)
            .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
            .enable(DeserializationFeature.USE_BIG_DECIMAL_FOR_FLOATS)
            .build();
  }

  ObjectNode parse(byte[] body) {
    JsonNode node;
    try {
      // Java's decoder, because Jackson's lets some invalid UTF-8 through. As it is read: the text
      // as a whole would be three times the body.
      node =
          mapper.readTree(
              new InputStreamReader(
                  new ByteArrayInputStream(body), StandardCharsets.UTF_8.newDecoder()));
    } catch (CharacterCodingException _) {
      throw invalid("bad-utf8", "the body is not valid UTF-8");
    } catch (StreamConstraintsException e) {
      boolean deep = e.getOriginalMessage().contains("depth");
      throw deep
          ? invalid("too-deep", "the body is nested deeper than " + limits.jsonDepth() + " levels")
          : invalid("too-large", "a number or a name in the body is too long");
    } catch (JsonProcessingException e) {
      throw broken(e);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    if (!(node instanceof ObjectNode object)) {
      throw invalid("wrong-type", "the body must be a JSON object");
    }
    return object;
  }

  private static ProblemException broken(JsonProcessingException e) {
    String where =
        e.getLocation() == null
            ? ""
            : " at line "
                + e.getLocation().getLineNr()
                + ", column "
                + e.getLocation().getColumnNr();
    if (e instanceof JsonParseException && e.getOriginalMessage().startsWith("Duplicate field")) {
      return invalid("duplicate-field", "a field is there twice" + where);
    }
    return invalid("bad-json", "the body is not valid JSON" + where);
  }

  private static ProblemException invalid(String code, String message) {
    return new ProblemException(Problem.Invalid.of("", code, message));
  }
}
