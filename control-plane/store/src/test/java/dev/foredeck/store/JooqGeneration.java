package dev.foredeck.store;

import java.nio.file.Path;
import org.jooq.codegen.GenerationTool;
import org.jooq.meta.jaxb.Configuration;
import org.jooq.meta.jaxb.Database;
import org.jooq.meta.jaxb.Generate;
import org.jooq.meta.jaxb.Generator;
import org.jooq.meta.jaxb.Jdbc;
import org.jooq.meta.jaxb.Target;

/// Makes `dev.foredeck.store.generated` from the migrations, by way of a real PostgreSQL: what
/// `./foredeck schema` runs after a new migration. [JooqGenerationTest] fails for as long as this
/// was not done.
public final class JooqGeneration {
  static final String PACKAGE = "dev.foredeck.store.generated";

  private JooqGeneration() {}

  /// @param args the folder to write to; `src/generated/jooq` without
  public static void main(String[] args) throws Exception {
    Path target = Path.of(args.length == 0 ? "src/generated/jooq" : args[0]);
    try (TestDatabase database = TestDatabase.start()) {
      Migrations.run(database.url());
      generate(database.url(), target);
    }
  }

  static void generate(DatabaseUrl url, Path target) throws Exception {
    GenerationTool.generate(
        new Configuration()
            .withJdbc(
                new Jdbc()
                    .withDriver("org.postgresql.Driver")
                    .withUrl(url.jdbcUrl())
                    .withUser(url.user())
                    .withPassword(url.password()))
            .withGenerator(
                new Generator()
                    .withDatabase(
                        new Database()
                            .withName("org.jooq.meta.postgres.PostgresDatabase")
                            .withInputSchema("public")
                            .withOutputSchemaToDefault(true)
                            // Partitions are made while the store runs.
                            .withExcludes("flyway_.*|.*_default|.*_from_.*")
                            .withIncludeRoutines(false))
                    .withGenerate(
                        new Generate()
                            .withGlobalObjectReferences(true)
                            .withRecords(true)
                            .withJavaTimeTypes(true)
                            .withIndexes(false)
                            .withKeys(true)
                            .withRelations(false)
                            .withImplicitJoinPathsToOne(false)
                            .withComments(false)
                            .withGeneratedAnnotation(false))
                    .withTarget(
                        new Target()
                            .withPackageName(PACKAGE)
                            .withDirectory(target.toString())
                            .withClean(true))));
  }
}
